"""Each picture decoded once: what one step of a run has decoded is handed to the next, within a bound of memory.

Nothing is kept unless a run asks for it (``keeping``): a service sees each picture once.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from components.pictures import clips, decoding
from components.pictures.decoding import DEFAULT, Decoding, Picture

MEGABYTES = 512.0
Key = tuple[str, int, int, Decoding]


class Shelf:
    """Decoded pictures, at most *room* bytes of them; what finds no room is decoded again. None goes for another:
    every step goes through all pictures in turn, so that the one used last would be the one needed last."""

    def __init__(self, room: float) -> None:
        self.room, self.pictures = room, dict[Key, Picture]()
        self.placing = threading.Lock()

    def picture(self, source: Path, name: str | None, rules: Decoding) -> Picture:
        known = source.stat() if source.is_file() else None
        key = (str(source), known.st_mtime_ns, known.st_size, rules) if known else None
        if key in self.pictures:
            return self.pictures[key]
        found = decoding.picture(source, name, rules)
        with self.placing:  # pictures are decoded side by side
            if key and key not in self.pictures and found.pixels.nbytes <= self.room:
                found.pixels.setflags(write=False)  # it is everyone's now
                self.pictures[key], self.room = found, self.room - found.pixels.nbytes
        return found


_shelf: Shelf | None = None


@contextmanager
def keeping(megabytes: float = MEGABYTES) -> Iterator[Shelf]:
    """Keep what is decoded inside the block."""
    global _shelf
    before, _shelf = _shelf, Shelf(megabytes * 1e6)
    try:
        yield _shelf
    finally:
        _shelf = before


def picture(source: Path | bytes, name: str | None = None, rules: Decoding = DEFAULT) -> Picture:
    """``decoding.picture``, from the shelf where it was decoded before. The pixels may be read-only."""
    if _shelf is None or isinstance(source, bytes):
        return decoding.picture(source, name, rules)
    return _shelf.picture(source, name, rules)


def decode(source: Path | bytes, name: str | None = None, rules: Decoding = DEFAULT) -> np.ndarray:
    """``clips.decode``, each frame from the shelf where it was decoded before. The pixels may be read-only."""
    if not rules.window or isinstance(source, bytes):
        return clips.decode(source, name, rules) if rules.window else picture(source, name, rules).pixels
    one = rules.single
    return clips.window(source, rules, lambda path: picture(path, name if path == source else None, one).pixels)
