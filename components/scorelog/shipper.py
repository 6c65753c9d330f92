"""From the local spool to the object store, in the background, exactly once."""

import logging
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.core.errors import DataError, StorageError
from components.scorelog import table
from components.scorelog.spool import BAD, Spool, keep_aside, read_segment
from components.storage import Store

log = logging.getLogger("loupe")
IMAGES, CLIPS = "images", "clips"


def _digest(sha256: str) -> str:
    """*sha256* itself. Raises DataError for what is none: a record of the store may name any place in it."""
    if not re.fullmatch(r"[\w-]{1,128}", str(sha256)):
        raise DataError(f"a record names {str(sha256)[:80]!r} as the hash of its picture, which is none")
    return sha256


def image_key(sha256: str) -> str:
    """Where the bytes of an image lie in the store: once, however often it is scored. Raises DataError."""
    sha256 = _digest(sha256)
    return f"{IMAGES}/{sha256[:2]}/{sha256}"


def clip_key(sha256: str) -> str:
    """Where the clip around an image of a stream lies in the store. Raises DataError."""
    sha256 = _digest(sha256)
    return f"{CLIPS}/{sha256[:2]}/{sha256}.webp"


class Shipper:
    """Ships closed segments and their images every *every* seconds; an outage only delays it."""

    def __init__(self, store: Store, spools: dict[str, Spool], images: Path, every: float = 2.0) -> None:
        self.store, self.spools, self.images, self.every = store, spools, images, every
        self._stop = threading.Event()
        self._busy = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)
        self.failing = False
        self.shipped = 0

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            try:
                self.ship()
            except Exception as error:  # the thread must live, or nothing is shipped any more
                log.error("shipping failed and is tried again: %s: %s", type(error).__name__, error)

    def ship(self) -> bool:
        """Ship everything recorded so far; False, with a log line at the first time, when the store is out of reach."""
        with self._busy:
            trouble = self._ship()
            if trouble and not self.failing:
                log.error("the score log waits on local disk: %s", trouble)
            if self.failing and not trouble:
                log.info("the object store is back; the score log is shipped")
            self.failing = trouble is not None
            return trouble is None

    def _ship(self) -> Exception | None:
        """Why not everything is shipped. A file that cannot be read waits alone; without the store all wait."""
        trouble: Exception | None = None
        try:
            for name, spool in self.spools.items():
                spool.close()
                for segment in spool.closed():
                    try:
                        self._segment(name, segment)
                    except OSError as error:
                        trouble = error
        except (StorageError, OSError) as error:
            trouble = error
        return trouble

    def _segment(self, name: str, segment: Path) -> None:
        """Ship a segment; records that no table can hold are kept aside with it and stop nothing."""
        records = read_segment(segment)
        try:
            self._send(name, segment, records)
        except (StorageError, OSError):
            raise
        except Exception as error:
            fit = [record for record in records if _fits(name, record)]
            fit = fit if len(fit) < len(records) else []
            log.error(
                "%s: %d of %d records cannot be shipped (%s: %s); the file is kept as %s",
                segment,
                len(records) - len(fit),
                len(records),
                type(error).__name__,
                error,
                BAD,
            )
            keep_aside(segment)
            self._send(name, segment, fit)

    def _send(self, name: str, segment: Path, records: Sequence[dict[str, Any]]) -> None:
        pictures = {r["sha256"] for r in records if r.get("image_uri")}
        for sha256 in sorted(pictures):
            self._image(sha256)
        table.write(self.store, name, segment.stem, records)
        segment.unlink(missing_ok=True)  # only now: a crash before this line ships the same objects again
        self.shipped += len(records)
        for sha256 in pictures:
            (self.images / sha256).unlink(missing_ok=True)

    def _image(self, sha256: str) -> None:
        """The image's bytes; a copy that was shipped and removed earlier needs no second time."""
        try:
            content = (self.images / sha256).read_bytes()
        except FileNotFoundError:
            return
        self.store.put_new(image_key(sha256), content)

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the thread and ship what is left; what cannot be shipped stays on disk for the next start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self.ship()


def _fits(name: str, record: dict[str, Any]) -> bool:
    try:
        table.check(name, record)
    except Exception as error:
        log.error("record %s: %s: %s", str(record)[:100], type(error).__name__, error)
        return False
    return True
