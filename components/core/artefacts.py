"""Artefact directories: written aside and renamed, each with the record of what made it.

``run.json`` holds what determines the bytes (inputs by hash, settings, seed, versions); ``timing.json`` holds what
varies from run to run and is therefore no hashed output of a DVC stage.
"""

import errno
import glob
import hashlib
import importlib.metadata
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from components.core import system
from components.core.errors import DataError, PlaceError
from components.core.places import writing
from components.core.settings import plain
from components.core.system import lives, peak_memory_mb

VOLATILE = "timing.json"
SIGNATURE = "signature.json"  # of a bundle: core.signing
UNCOUNTED = (VOLATILE, SIGNATURE)  # no part of what a folder is: a bundle stays the same one when it is signed
LOCK = ".lock"  # of a run: held by the process that writes it
TRIES = 100  # at renaming, where other processes write the same folder
NUMBERS = itertools.count()
STAMP = re.compile(r"(?P<of>(?P<pid>\d+)(-\d+)?)\.(?P<kind>part|old)")  # of older versions without the second number
VERSIONED = ("torch", "timm", "numpy", "pandas", "pillow", "onnx", "onnxruntime", "great-expectations")


_writing: set[str] = set()  # the stamps of what threads of this process write now


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """A name beside *path* that no other process or thread is given; what is there when the block ends is removed."""
    stamp = f"{os.getpid()}-{next(NUMBERS)}"
    scratch = path.with_name(f".{path.name}.{stamp}.part")
    _writing.add(stamp)
    try:
        yield scratch
    finally:
        if scratch.is_dir():
            shutil.rmtree(scratch, ignore_errors=True)
        else:
            scratch.unlink(missing_ok=True)
        _writing.discard(stamp)


@contextmanager
def atomic_dir(out: Path) -> Iterator[Path]:
    """A scratch directory beside *out* that takes its place when the block ends well, and else is removed.

    After a power cut *out* is the old or the new one, whole; what killed processes left beside it is cleared away.
    """
    out = Path(out)
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear(out)
        with aside(out) as scratch:
            scratch.mkdir()
            yield scratch
            system.flush_below(scratch)
            _put(scratch, out)


def _put(scratch: Path, out: Path) -> None:
    if system.swapped(scratch, out):  # what was there is removed by whoever made the scratch
        return
    replaced = scratch.with_suffix(".old")
    for _ in range(TRIES):
        with suppress(FileNotFoundError):
            out.rename(replaced)
        try:
            scratch.rename(out)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                with suppress(FileNotFoundError):
                    replaced.rename(out)
                raise
        else:
            shutil.rmtree(replaced, ignore_errors=True)
            return
        # Another process put its own there between the two renames: that is the old one now. There may have been none.
        shutil.rmtree(replaced, ignore_errors=True)
    raise PlaceError(f"{out}: other processes write there all the time; end them or give another folder")


def _clear(out: Path) -> None:
    for left in out.parent.glob(f".{glob.escape(out.name)}.*"):
        found = STAMP.fullmatch(left.name.removeprefix(f".{out.name}."))
        if found is None or in_use(found):
            continue
        if found["kind"] == "old" and not out.exists():  # killed between the two renames
            with suppress(OSError):  # another process clears as well
                left.rename(out)
        else:
            shutil.rmtree(left, ignore_errors=True)


def in_use(stamp: re.Match[str]) -> bool:
    """Whether what carries this stamp is being written. A container's process has the number of the one before it."""
    return stamp["of"] in _writing or lives(int(stamp["pid"]))


def lock_of(folder: Path) -> Path:
    """The lock of a folder that is replaced as a whole; beside it on Windows, which renames none with an open file."""
    place = folder.absolute()
    return place.with_name(f".{place.name}{LOCK}") if system.WINDOWS else folder / LOCK


@contextmanager
def locked(path: Path, wait: bool = True, what: str = "") -> Iterator[None]:
    """Hold the lock of *path* among all processes of this machine; it ends with the process that holds it.

    Without *wait* a PlaceError says who holds it; *what* is then what the lock protects.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = path.open("a+")
    with stream:
        try:
            system.take(stream, wait)
        except BlockingIOError:
            raise PlaceError(
                f"{what or path}: {_holder(path)} writes there; wait for its end or give another"
            ) from None
        try:
            stream.truncate(0)
            stream.write(f"{os.getpid()} {socket.gethostname()}\n")
            stream.flush()
            yield
        finally:
            system.release(stream)


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """Keep others from taking the lock of *path* while something that it protects is read; PlaceError if one has it.

    Where there is no lock, nobody writes, and none is made: the place may be read-only.
    """
    try:
        stream = path.open()
    except OSError:
        yield
        return
    with stream:
        try:
            system.take(stream, wait=False, shared=True)
        except BlockingIOError:
            raise PlaceError(f"{what}: {_holder(path)} writes there; wait for its end") from None
        try:
            yield
        finally:
            system.release(stream)


def _holder(path: Path) -> str:
    """Who holds a lock, by what it wrote into it; who only reads writes nothing, so the note may be of the dead."""
    pid, _, host = path.read_text().strip().partition(" ")
    known = pid.isdigit() and (host != socket.gethostname() or lives(int(pid)))
    return f"process {pid} on {host}" if known else "another process"


def write_json(path: Path, value: Any) -> Path:
    """Write *value* (settings classes welcome) as sorted, indented JSON, aside and renamed."""
    content = (json.dumps(plain(value), indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
    with writing(path), aside(path) as scratch:
        write_flushed(scratch, content)
        system.replace(scratch, path)
    return path


def write_flushed(path: Path, content: bytes) -> None:
    """Return when *content* is on the disk, so that a rename that follows never brings an empty file to light."""
    with path.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def read_json(path: Path) -> Any:
    """What a JSON file holds. Raises DataError when it is damaged."""
    return parsed(Path(path).read_bytes(), path)


def parsed(content: bytes, where: object) -> Any:
    """What the bytes of a JSON document hold, which come from *where*. Raises DataError when it is damaged."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # brackets in brackets, a thousand deep, are damage as well
        raise DataError(f"{where}: is damaged ({error}); take it from a copy, or make its folder anew") from error


NESTED = 100  # brackets within each other in a YAML document: what reads it takes the square of their number


class YamlError(ValueError):
    """A text that is no YAML document; ``line`` is where, counted from 1, if that is known."""

    def __init__(self, said: str, line: int | None = None) -> None:
        super().__init__(said)
        self.line = line


def parsed_yaml(text: str) -> Any:
    """What a YAML document holds, in bounded time. Raises YamlError."""
    import yaml

    if _depth(text) > NESTED:
        raise YamlError(f"has more than {NESTED} brackets within each other")
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise YamlError(" ".join(str(error).split()), mark and mark.line + 1) from error
    except (ValueError, RecursionError) as error:  # a date that is none, lists by indent too deep
        raise YamlError(str(error)) from error


def _depth(text: str) -> int:
    """How many brackets are open at most."""
    depth = most = 0
    for sign in text:
        depth += (sign in "[{") - (sign in "]}")
        most = max(most, depth)
    return most


def mapping(content: bytes, where: object) -> dict[str, Any]:
    """The same of a document that has to hold keys and values. Raises DataError."""
    values = parsed(content, where)
    if not isinstance(values, dict):
        raise DataError(f"{where}: is damaged (no keys and values); take it from a copy, or remove it")
    return values


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def tree_hash(path: Path) -> str:
    """SHA-256 over the names and contents below *path*, without UNCOUNTED; of a file, its ``file_hash``."""
    path = Path(path)
    if path.is_file():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and p.name not in UNCOUNTED):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file_hash(file)}\n".encode())
    return digest.hexdigest()


def code_hash() -> str:
    """The identity of this very program: a newer Loupe may fit otherwise."""
    root = Path(__file__).parents[1]
    return values_hash([[p.relative_to(root).as_posix(), file_hash(p)] for p in sorted(root.rglob("*.py"))])


def values_hash(value: Any) -> str:
    """SHA-256 of settings or any JSON value: the identity of a configuration."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()


@contextmanager
def recorded(
    out: Path,
    stage: str,
    settings: Any,
    inputs: Mapping[str, Path],
    seed: int | None = None,
    seal: Callable[[Path], None] = lambda _: None,
) -> Iterator[Path]:
    """``atomic_dir`` plus the ``run.json`` and ``timing.json`` of *stage*: the frame of every component.

    *seal* is the last thing that is done to the folder before it takes its place.
    """
    started = time.perf_counter()
    with atomic_dir(out) as scratch:
        yield scratch
        record = {
            "stage": stage,
            "settings": plain(settings),
            "inputs": {name: tree_hash(path) for name, path in sorted(inputs.items())},
            "seed": seed,
            "versions": versions(),
        }
        write_json(scratch / "run.json", record)
        timing = {
            "seconds": round(time.perf_counter() - started, 3),
            "peak_memory_mb": peak_memory_mb(),
            "git_commit": git_commit(),
        }
        earlier = read_json(scratch / VOLATILE) if (scratch / VOLATILE).exists() else {}
        write_json(scratch / VOLATILE, {**timing, **earlier})
        seal(scratch)


MEMBERS = "members_seconds"  # in the timing of an ensemble: what the trainings of its members took


def seconds_of(artefact: Path) -> float | None:
    """What making *artefact* took, with the trainings of an ensemble's members; None where nothing was kept."""
    path = artefact / VOLATILE
    if not path.exists():
        return None
    timing = read_json(path)
    return float(timing.get("seconds", 0.0) + timing.get(MEMBERS, 0.0))


def versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in VERSIONED}


def git_commit() -> str | None:
    """The commit of the working tree, with ``+`` behind it when there are changes; None without git or a repository."""
    if shutil.which("git") is None:
        return None
    done = subprocess.run(["git", "describe", "--always", "--dirty=+", "--abbrev=40"], capture_output=True, text=True)
    return done.stdout.strip() or None
