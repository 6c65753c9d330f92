"""The local half of the score log: append, flush to disk, and only then is a response sent.

Lines go to an open segment, whose process holds the lock beside it. A segment is closed by renaming it; what a crashed
process left open is closed by the next one that looks. A closed segment never changes again, and its name is the name
of what it becomes in the object store, so shipping it twice writes the same object twice.
"""

import json
import logging
import threading
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from components.core import system
from components.core.artefacts import mapping, write_flushed
from components.core.errors import DataError, StorageError

log = logging.getLogger("loupe")
OPEN, CLOSED, BAD = ".open", ".jsonl", ".bad"


class Spool:
    """Segments of one table's records as JSON lines in *folder*, at most *rows* each. Safe for several threads."""

    def __init__(self, folder: Path, rows: int = 500) -> None:
        self.folder, self.rows = folder, rows
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._stream: IO[bytes] | None = None
        self._held: IO[bytes] | None = None
        self._path = folder
        self._count = 0

    def append(self, records: Sequence[dict[str, Any]]) -> None:
        """Return when the records are on disk. Raises StorageError when they are not."""
        lines = b"".join(json.dumps(record, allow_nan=False).encode() + b"\n" for record in records)
        with self._lock:
            try:
                stream = self._stream or self._begin()
                stream.write(lines)
                stream.flush()
                system.flush(stream.fileno())
            except OSError as error:
                self._abandon()  # what reached the file is a torn line, which a reader drops
                raise StorageError(
                    f"{self.folder}: the score log cannot be written ({error}); check the disk"
                ) from error
            self._count += len(records)
            if self._count >= self.rows:
                self._close()

    def _begin(self) -> IO[bytes]:
        # Locked before there is a segment that others look for, so nobody takes it for a crashed process's.
        self._path = self.folder / f"{uuid.uuid4().hex}{OPEN}"
        self._held = _lock_of(self._path).open("ab")
        system.take(self._held)
        self._stream, self._count = self._path.open("ab"), 0
        system.take(self._stream)  # older programs look at this one, and make no lock beside it
        return self._stream

    def _abandon(self) -> None:
        """Leave the segment to the next one that looks."""
        for stream in filter(None, (self._stream, self._held)):
            with suppress(OSError):
                stream.close()
        if not self._path.exists():
            _lock_of(self._path).unlink(missing_ok=True)
        self._stream, self._held, self._count = None, None, 0

    def _close(self) -> None:
        stream, held = self._stream, self._held
        self._stream, self._held, self._count = None, None, 0
        if stream and held:
            with held:
                stream.close()  # Windows renames no open file
                _closed(self._path)
                system.remove_held(_lock_of(self._path), held)  # goes last: nobody takes it for a crashed one

    def close(self) -> None:
        """Close the open segment, so that it can be shipped."""
        with self._lock:
            self._close()

    def closed(self) -> list[Path]:
        """Closed segments, crashed processes' included, oldest first."""
        for path in self.folder.glob(f"*{OPEN}"):
            _adopt(path)
        return sorted(self.folder.glob(f"*{CLOSED}"), key=lambda path: (path.stat().st_mtime, path.name))

    def pending(self) -> list[dict[str, Any]]:
        """All records that are not shipped yet, in no order."""
        paths = [*self.folder.glob(f"*{OPEN}"), *self.folder.glob(f"*{CLOSED}")]
        return [record for path in paths for record in read_segment(path)]


def _lock_of(path: Path) -> Path:
    return path.with_name(f".{path.stem}.lock")


def _closed(path: Path) -> None:
    """Give a segment the name of a closed one. On Windows, where a reader has it open, the next look does that."""
    try:
        path.rename(path.with_suffix(CLOSED))
    except FileNotFoundError:
        return
    except PermissionError:
        if not system.WINDOWS:
            raise


def _adopt(path: Path) -> None:
    """Close a segment whose process is gone: nobody holds its lock."""
    lock = _lock_of(path)
    with suppress(BlockingIOError), lock.open("ab") as held:
        system.take(held, wait=False)
        with suppress(FileNotFoundError, BlockingIOError):  # closed meanwhile; held by an older program, as below
            with path.open("rb") as stream:
                system.take(stream, wait=False)
            _closed(path)
        system.remove_held(lock, held)


def read_segment(path: Path) -> list[dict[str, Any]]:
    """The records of a segment; a last line without its end was never answered for and is dropped."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:  # shipped meanwhile
        return []
    records = []
    for number, line in enumerate(lines, 1):
        try:
            records.append(mapping(line, path))
        except DataError:
            log.error("%s: line %d is damaged and left out; the file is kept as %s", path, number, BAD)
            keep_aside(path)
    return records


def keep_aside(path: Path) -> None:
    """Keep a copy of a segment that is not shipped as it is, for somebody to look at."""
    write_flushed(path.with_suffix(BAD), path.read_bytes())
