"""The queue of messages on local disk: appended in order, read by each output from its own place, removed behind all.

Segments are files of lines, numbered; a process begins a new one, and a last line without its end, of a process that
was killed, was never answered for. Memory holds one segment at most.
"""

import json
import logging
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from components.core import system
from components.core.errors import StorageError
from components.service.line.messages import Message

log = logging.getLogger("loupe")
SEGMENT = 1_000_000  # bytes after which the next one begins
ENDING = ".jsonl"


class Place(NamedTuple):
    """Where an output reads on: a segment's number and a byte in it."""

    segment: int = 0
    offset: int = 0


class Journal:
    """Messages below *folder*, *most* bytes at most; beyond it the oldest segment goes. Safe for several threads.

    One process at a time: raises StorageError where another one holds the folder.
    """

    def __init__(self, folder: Path, most: float, segment: int = SEGMENT) -> None:
        self.folder, self.most, self.segment = folder, most, segment
        self.folder.mkdir(parents=True, exist_ok=True)
        self._held = (self.folder / ".lock").open("ab")
        try:
            system.take(self._held, wait=False)
        except BlockingIOError:
            raise StorageError(f"{folder}: another service sends from there; give each its own service.spool") from None
        self.appended = 0  # messages since the start
        self.dropped = 0  # messages that went unsent because the disk's share was full
        self._more = threading.Condition()
        self._number = max(self._numbers(), default=0) + 1
        self._stream: IO[bytes] | None = None
        self._size = 0

    @property
    def end(self) -> Place:
        """Behind the last message."""
        with self._more:
            return Place(self._number, self._size)

    def append(self, messages: Sequence[Message]) -> None:
        """Return when they are on disk. Raises StorageError when they are not."""
        lines = b"".join(json.dumps(one, allow_nan=False).encode() + b"\n" for one in messages)
        with self._more:
            try:
                self._stream = self._stream or self._path(self._number).open("ab")
                self._stream.write(lines)
                self._stream.flush()
                system.flush(self._stream.fileno())
            except OSError as error:
                self._next()  # what reached the file may end in a torn line
                said = f"{self.folder}: a message cannot be written ({error}); check the disk"
                raise StorageError(said) from error
            self._size += len(lines)
            self.appended += len(messages)
            if self._size >= self.segment:
                self._next()
                self._bounded()
            self._more.notify_all()

    def _next(self) -> None:
        if self._stream:
            with suppress(OSError):
                self._stream.close()
        self._stream, self._number, self._size = None, self._number + 1, 0

    def _bounded(self) -> None:
        sizes = {number: self._path(number).stat().st_size for number in self._numbers()}
        for number in sorted(sizes)[:-1]:
            if sum(sizes.values()) <= self.most:
                return
            lost = self._path(number).read_bytes().count(b"\n")
            self.dropped += lost
            log.error("%s is full: %d messages that waited longest are not sent; raise service.line.most_mb",
                      self.folder, lost)  # fmt: skip
            self._path(number).unlink()
            del sizes[number]

    def read(self, place: Place, most: int = 100) -> list[tuple[Message, Place]]:
        """Messages from *place* on, each with the place behind it; none where all are read."""
        for number in [n for n in self._numbers() if n >= place.segment]:
            start = place.offset if number == place.segment else 0
            if found := self._lines(number, start, most):
                return found
        return []

    def _lines(self, number: int, start: int, most: int) -> list[tuple[Message, Place]]:
        try:
            with self._path(number).open("rb") as stream:
                stream.seek(start)
                lines = stream.read().split(b"\n")[:-1][:most]
        except FileNotFoundError:  # removed meanwhile
            return []
        found, at = [], start
        for line in lines:
            at += len(line) + 1
            try:
                found.append((dict(json.loads(line)), Place(number, at)))
            except ValueError:
                log.error("%s: a line before byte %d is damaged and not sent", self._path(number), at)
        return found

    def count(self, place: Place) -> int:
        """How many messages lie behind *place*."""
        total, numbers = 0, [n for n in self._numbers() if n >= place.segment]
        for number in numbers:
            with suppress(FileNotFoundError), self._path(number).open("rb") as stream:
                stream.seek(place.offset if number == place.segment else 0)
                total += stream.read().count(b"\n")
        return total

    def wait(self, seen: int, seconds: float) -> None:
        """Return when more messages were appended than *seen*, after some time, or when somebody wakes all."""
        with self._more:
            if self.appended <= seen:
                self._more.wait(seconds)

    def wake(self) -> None:
        """Let everybody look."""
        with self._more:
            self._more.notify_all()

    def trim(self, places: Iterable[Place]) -> None:
        """Remove the segments that all have read."""
        least = min((place.segment for place in places), default=self._number)
        for number in self._numbers():
            if number < min(least, self._number):
                self._path(number).unlink(missing_ok=True)

    def close(self) -> None:
        """Give the folder back."""
        with self._more:
            self._next()
        system.release(self._held)
        self._held.close()

    def _numbers(self) -> list[int]:
        return sorted(int(path.stem) for path in self.folder.glob(f"*{ENDING}") if path.stem.isdecimal())

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:012d}{ENDING}"
