"""Which files nobody is writing any more: unchanged for a while, and open for writing in no process of this machine."""

import contextlib
import os
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Look(NamedTuple):
    """What tells one state of a file from the next."""

    inode: tuple[int, int]
    size: int
    modified: int  # ns
    changed: int  # ns


def settled(paths: Iterable[Path], seconds: float, limit: int) -> list[Path]:
    """The first *limit* readable files that have not changed for *seconds*; waits so long once where a clock is unsure.

    A time stamp in the future says nothing: two looks decide.
    """
    sure: list[Path] = []
    unsure: dict[Path, Look] = {}
    busy, now = written(), 0.0
    for path in paths:
        if len(sure) >= limit:
            return sure
        now = now or clock(path.parent)
        look = _look(path)
        if look is None or look.inode in busy:
            continue
        if now - max(look.modified, look.changed) / 1e9 >= seconds:
            sure.append(path)
        else:
            unsure[path] = look
    if unsure:
        time.sleep(seconds)
        busy = written()
        sure += [path for path, look in unsure.items() if _look(path) == look and look.inode not in busy]
    return sure[:limit]


def _look(path: Path) -> Look | None:
    """None when the file is gone or this process may not read it."""
    try:
        state = path.stat()
    except OSError:
        return None
    look = Look((state.st_dev, state.st_ino), state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    return look if os.access(path, os.R_OK) else None


def clock(folder: Path) -> float:
    """The time by the clock that stamps the files of *folder*, which may be a file server's."""
    probe = folder / f".{uuid.uuid4().hex}.part"
    try:
        probe.touch()
        return probe.stat().st_mtime
    except OSError:
        return time.time()
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def written() -> set[tuple[int, int]]:
    """Device and inode of every file that a process of this machine, as far as we may see it, holds open to write."""
    found = set()
    for folder in PROC.glob("[0-9]*/fd"):
        with contextlib.suppress(OSError):  # a process that ended, or of another user
            for handle in folder.iterdir():
                with contextlib.suppress(OSError, StopIteration):
                    if inode := _written(handle):
                        found.add(inode)
    return found


def _written(handle: Path) -> tuple[int, int] | None:
    target = str(handle.readlink())
    if not target.startswith("/") or target.startswith("/dev/"):
        return None  # sockets, pipes and terminals
    with (handle.parents[1] / "fdinfo" / handle.name).open() as stream:
        flags = next(line for line in stream if line.startswith("flags:"))
    if int(flags.split()[1], 8) & os.O_ACCMODE == os.O_RDONLY:
        return None
    state = handle.stat()
    return state.st_dev, state.st_ino
