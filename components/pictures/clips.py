"""Frames of clips: which frames a frame's window holds, and their pixels.

A clip is a folder, its frames the picture files in it in the order of their names, numbers by their value. The window
of a frame is that frame and those before it. Before the first frame of a clip the first one is repeated, so that every
frame has a score; so is a frame that cannot be read, by the one behind it, as a camera that drops a frame shows the
last one again.

A bundle carries a copy of this file for its runner: nothing of the project may be imported but ``decoding``.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from components.pictures import decoding
from components.pictures.decoding import DEFAULT, LIMIT, SUFFIXES, DataError, Decoding

Decode = Callable[[Path], np.ndarray]  # one frame, uint8 (H, W, 3)


def decode(source: Path | bytes, name: str | None = None, rules: Decoding = DEFAULT, limit: str = LIMIT) -> np.ndarray:
    """What a model sees of a file: uint8 (H, W, 3), or of the frame of a clip its window (rules.window, H, W, 3).

    Raises DataError, and nothing else, as ``decoding.decode`` does, and for bytes that should be the frame of a clip.
    """
    one = rules.single
    if not rules.window:
        return decoding.decode(source, name, rules, limit)
    if isinstance(source, bytes):
        raise DataError(
            f"{name or 'image'}: is one picture, and the model looks at {rules.window} frames of a clip together; "
            "score frames in the folder of their clip, or use `loupe watch`"
        )
    return window(source, rules, lambda path: decoding.decode(path, name if path == source else None, one, limit))


def window(target: Path, rules: Decoding, read: Decode) -> np.ndarray:
    """The frames that end with *target*, oldest first, each read by *read*: uint8 (rules.window, H, W, 3).

    Raises DataError when the target itself cannot be read.
    """
    frames = [read(target)]
    for path in past(target, rules.window - 1, rules.stride)[::-1]:
        frames.append(_or_later(path, frames[-1], read))
    return np.stack(frames[::-1])


def past(target: Path, count: int, stride: int) -> list[Path]:
    """The *count* frames before *target*, oldest first, every *stride*-th; the first of the clip where there are none.

    With stride 0 a picture stands by itself: nothing moved before it.
    """
    known = frames(target.parent) if stride else (target,)
    at = known.index(target) if target in known else -1
    if at < 0:
        return [target] * count
    return [known[max(0, at - stride * back)] for back in range(count, 0, -1)]


def frames(folder: Path) -> tuple[Path, ...]:
    """The picture files of *folder* itself, in the order in which they were taken."""
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError:
        return ()


@lru_cache(maxsize=256)
def _listed(folder: Path, changed: int) -> tuple[Path, ...]:  # noqa: ARG001  (a folder that fills is listed anew)
    return tuple(sorted(pictures_in(folder), key=order))


def pictures_in(folder: Path) -> Iterator[Path]:
    """The picture files of *folder* itself as they are now, in no order."""
    return (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def order(path: Path) -> tuple[list[Any], str]:
    """By which names sort as they were counted: frame 9 before frame 10."""
    parts = re.split(r"(\d+)", path.stem)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def target(pixels: np.ndarray) -> np.ndarray:
    """The picture that is scored, (H, W, 3), of a picture or of a window of frames."""
    return pixels if pixels.ndim == 3 else pixels[-1]


def sides(pixels: np.ndarray) -> tuple[int, int]:
    """Height and width of a picture (H, W, 3) or of the frames of a window (T, H, W, 3)."""
    height, width = pixels.shape[-3:-1]
    return height, width


def _or_later(path: Path, later: np.ndarray, read: Decode) -> np.ndarray:
    """A frame, or the one behind it where it cannot be read or is of another size."""
    try:
        found = read(path)
    except DataError:
        return later
    return found if found.shape == later.shape else later
