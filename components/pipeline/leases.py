"""What a run of a cell leaves in the store while it lives: a beat that others hear, and a state that others take up."""

import json
import logging
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.core.errors import ObjectError, StorageError
from components.storage import Store
from components.storage.trees import at_once, get_files, put_file

log = logging.getLogger("loupe")
BEATS = 6.0  # in the time without one after which a run counts as dead
GONE = 75  # exit status of a run that another one has taken up: try again later, in sysexits.h
# Half-written folders and files, and the state that an earlier fit left for a later one: no part of how far a run is.
PASSING = re.compile(r"^\..*(\.\d+\.(part|old)|\.state)$")


@dataclass(frozen=True)
class Owner:
    """Who works at a cell: a run of Prefect's, and the how manieth it is of this cell."""

    run: str
    attempt: int = 1


def lease_key(at: str) -> str:
    """The object that tells who works at the cell of which everything lies below *at*."""
    return f"{at}/lease.json"


def read_lease(store: Store, at: str) -> dict[str, Any]:
    """The last beat of whoever works there; nothing where nobody did. Raises StorageError."""
    return dict(json.loads(store.get(lease_key(at)))) if store.exists(lease_key(at)) else {}


class Beat:
    """The beats of one owner. A later attempt has taken the cell over where one is found: *lost* is called then."""

    def __init__(self, store: Store, at: str, owner: Owner, lost: Callable[[], None]) -> None:
        self.store, self.at, self.owner, self.lost, self.count = store, at, owner, lost, 0

    def beat(self) -> None:
        """An earlier attempt that still writes here, as it has not looked yet, is overwritten."""
        if int(read_lease(self.store, self.at).get("attempt", 0)) > self.owner.attempt:
            log.warning("%s: has been taken up by another run; this one ends", self.at)
            self.lost()
            return
        self.count += 1
        told = {**asdict(self.owner), "beat": self.count, "host": socket.gethostname(), "pid": os.getpid()}
        self.store.put(lease_key(self.at), json.dumps(told).encode())


class State:
    """The files of an unfinished run below *folder*, as objects below *at*: checkpoints, and what is done."""

    def __init__(self, store: Store, at: str, folder: Path) -> None:
        self.store, self.at, self.folder = store, f"{at}/state", folder
        self.done: list[str] = []  # stages behind which the run is
        self.files: dict[str, str] = {}
        self.known: set[str] = set()
        self.kept: tuple[list[str], dict[str, tuple[int, ...]]] = [], {}
        self.lock = threading.Lock()

    def take_up(self) -> None:
        """Write the files of an earlier run, if there was one. One whose state is damaged begins anew."""
        if not self.store.exists(f"{self.at}.json"):
            return
        found = json.loads(self.store.get(f"{self.at}.json"))
        try:
            get_files(self.store, found["files"], self.folder, self.at)
        except ObjectError as error:
            log.warning("%s: the state of the run before cannot be read (%s); the run begins anew", self.at, error)
            return
        self.done, self.files = found["done"], found["files"]
        self.known, self.kept = set(self.files.values()), (list(self.done), self._seen())
        log.info("%s: goes on from what another run left, behind %s", self.at, ", ".join(self.done) or "no stage yet")

    def keep(self) -> bool:
        """Put what has changed; False where nothing has, or where files changed meanwhile: the next call looks again.

        Raises StorageError.
        """
        with self.lock:
            before, done = self._seen(), list(self.done)
            if (done, before) == self.kept:
                return False
            try:
                fresh = [name for name in before if self.kept[1].get(name) != before[name]]
                digests = at_once(lambda name: put_file(self.store, self.folder / name, self.at, self.known), fresh)
            except FileNotFoundError:
                return False
            if self._seen() != before:
                return False
            files = {name: self.files[name] for name in before if name not in fresh}
            files |= dict(zip(fresh, digests, strict=True))
            self.store.put(f"{self.at}.json", json.dumps({"done": done, "files": files}).encode())
            self._forget(set(files.values()))
            self.files, self.kept = files, (done, before)
            return True

    def clear(self) -> None:
        """Delete all of it: the run is done, or a fresh one is to begin."""
        with self.lock:
            self.store.delete(f"{self.at}.json")
            for key in list(self.store.keys(f"{self.at}/")):
                self.store.delete(key)
            self.kept, self.files, self.known = ([], {}), {}, set()

    def _forget(self, wanted: set[str]) -> None:
        for digest in self.known - wanted:
            self.store.delete(f"{self.at}/{digest}")
        self.known &= wanted

    def _seen(self) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder)
            if any(PASSING.match(part) for part in name.parts):
                continue
            with suppress(FileNotFoundError):
                if path.is_file():
                    told = path.stat()
                    found[name.as_posix()] = (told.st_ino, told.st_size, told.st_mtime_ns)
        return found


@contextmanager
def repeated(seconds: float, call: Callable[[], Any]) -> Iterator[None]:
    """*call* now and every so many seconds while the block runs; a store that does not answer is asked again."""
    ended = threading.Event()

    def turn() -> None:
        while True:
            try:
                call()
            except StorageError as error:
                log.warning("%s; tried again in %.3g s", error, seconds)
            if ended.wait(seconds):
                return

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def gone() -> None:
    """End this process at once, and the stage that it started with it: another run does its work."""
    os._exit(GONE)
