"""A picture as squares that a detector sees one at a time, and the map that they make together.

The squares lie on a grid over the picture, overlap by a quarter at least, and reach its rim. Where the sides of a
picture differ little one square is the whole picture, squeezed; where they differ much, squares of the shorter side
keep what is round round. Heat maps are blended linearly where squares overlap; the picture's score is the largest of
its squares' (docs/adr/0031-tiles.md).

A bundle carries a copy of this file for its runner: nothing of the project may be imported but ``framing``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from components.pictures.framing import region

OVERLAP = 0.25  # share of a square's side: more than a backbone's border effects reach at 256 pixels
LONG = 1.5  # times the shorter side: pictures up to here are squeezed into one square where one lies across
MOST = 64  # squares across the shorter side

Span = tuple[int, int]


class Box(NamedTuple):
    """A square of a picture, in its pixels."""

    rows: Span
    columns: Span

    def of(self, pixels: np.ndarray) -> np.ndarray:
        """What lies within, of (H, W, ...); a view."""
        return pixels[slice(*self.rows), slice(*self.columns)]


class Grid(NamedTuple):
    """Where the squares of a picture lie: each span of rows with each span of columns."""

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]

    @property
    def boxes(self) -> list[Box]:
        """All squares, row by row."""
        return [Box(rows, columns) for rows in self.rows for columns in self.columns]


def grid(height: int, width: int, across: int) -> Grid:
    """*across* squares over the shorter side, and as many as it takes over the longer; 0: the whole picture is one."""
    short, long = sorted((height, width))
    if not across or (across == 1 and long <= LONG * short):
        return Grid(((0, height),), ((0, width),))
    side = -(-short // (across - (across - 1) * OVERLAP))
    return Grid(_spans(height, int(side)), _spans(width, int(side)))


def _spans(length: int, side: int) -> tuple[Span, ...]:
    """The fewest spans of *side* that cover *length* and overlap enough, evenly spread."""
    if length <= side:
        return ((0, length),)
    count = int(np.ceil((length / side - OVERLAP) / (1 - OVERLAP) - 1e-9))
    starts = [round(number * (length - side) / (count - 1)) for number in range(count)]
    return tuple((start, start + side) for start in starts)


def boxes(height: int, width: int, across: int, roi: str | None = None) -> list[Box]:
    """The squares of a picture that hold any of the region of interest."""
    counts = region(roi, (height, width)) if across else None
    return [box for box in grid(height, width, across).boxes if counts is None or box.of(counts).any()]


def pieces(pixels: np.ndarray, across: int, roi: str | None = None) -> list[np.ndarray]:
    """``boxes`` of *pixels* (H, W, ...), one view each."""
    return [box.of(pixels) for box in boxes(pixels.shape[0], pixels.shape[1], across, roi)]


def blended(maps: Sequence[np.ndarray], found: Sequence[Box], height: int, width: int) -> np.ndarray:
    """One heat map float32 (height, width) of those of the squares *found*, each as large as its square.

    Where there is no square, outside the region of interest, it is 0.
    """
    if len(found) == 1 and maps[0].shape == (height, width):
        return maps[0]
    whole = np.zeros((height, width), np.float32)
    weights = [_ramps(spans) for spans in zip(*found, strict=True)]
    for heat, box in zip(maps, found, strict=True):
        whole[slice(*box.rows), slice(*box.columns)] += heat * weights[0][box.rows][:, None] * weights[1][box.columns]
    return whole


def _ramps(spans: Sequence[Span]) -> dict[Span, np.ndarray]:
    """For each span its weights, float32, which rise and fall over what it shares and add up to 1 everywhere."""
    known = sorted(set(spans))
    raw = {span: _rise(span, known[:i]) * _rise(span, known[i + 1 :])[::-1] for i, span in enumerate(known)}
    total = np.zeros(known[-1][1], np.float32)
    for (start, stop), weight in raw.items():
        total[start:stop] += weight
    return {(start, stop): weight / total[start:stop] for (start, stop), weight in raw.items()}


def _rise(span: Span, others: Sequence[Span]) -> np.ndarray:
    """Rises linearly to 1 over what *span* shares with the nearest of *others*; 1 throughout without any."""
    length = span[1] - span[0]
    shared = max((min(span[1], stop) - max(span[0], start) for start, stop in others), default=0)
    if shared <= 0:
        return np.ones(length, np.float32)
    return np.minimum(1, (np.arange(length, dtype=np.float32) + 1) / (shared + 1))


def placed(found: Sequence[Box], side: int, height: int, width: int) -> tuple[list[Box], int, int]:
    """Squares *found* in a picture, and its height and width, where each of them becomes *side* pixels."""
    rows, columns = found[0]
    steps = side / (rows[1] - rows[0]), side / (columns[1] - columns[0])
    moved = [Box(*(_at(start, step, side) for (start, _), step in zip(box, steps, strict=True))) for box in found]
    return moved, round(height * steps[0]), round(width * steps[1])


def _at(start: int, step: float, side: int) -> Span:
    first = round(start * step)
    return first, first + side
