"""An anomaly on a picture of any shape and size, at the picture's own resolution.

Nothing but the anomaly differs from the picture, so that what reads the result has nothing else to go by
(docs/adr/0023-one-chain.md). Where a region of interest is looked at, an anomaly is drawn about it and cut to it.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

from components.core.errors import DataError
from components.pictures.measuring import is_grey
from components.synthesis.blending import Synthetic, made

PLACES = 10  # squares that are tried: on an empty part of a long picture some strategies change nothing
LEAST = 64  # pixels: side of the box around a region that is drawn in

Draw = Callable[[np.ndarray], Synthetic]  # on a square, uint8 (side, side, 3)


def on_picture(
    picture: np.ndarray, draw: Draw, most: int, rng: np.random.Generator, region: np.ndarray | None = None
) -> Synthetic:
    """*draw* in a square of the shorter side of *picture*, uint8 (H, W, 3), at a random place; the rest is untouched.

    It draws on *most* pixels a side at most; the area of the result is its share of the whole picture. With a *region*,
    bool (H, W), the square is one of the box around it, and nothing outside is touched. Raises DataError.
    """
    if region is None:
        return _on(picture, draw, most, rng)
    box = _box(region)

    def boxed() -> Synthetic:
        drawn = _on(np.ascontiguousarray(picture[box]), draw, most, rng)
        image, mask = picture.copy(), np.zeros(region.shape, bool)
        image[box], mask[box] = drawn.image, drawn.mask
        return Synthetic(image, mask, drawn.strength, drawn.area)

    return cut(picture, boxed, region)


def cut(picture: np.ndarray, draw: Callable[[], Synthetic], region: np.ndarray) -> Synthetic:
    """What *draw* makes of *picture* (H, W, 3), inside *region*, bool (H, W), alone: the first of a few draws of which
    half lies there, else the one of which most does. Area and mask are those of what is left. Raises DataError."""
    found: Synthetic | None = None
    for left in reversed(range(PLACES)):
        try:
            drawn = draw()
        except DataError:  # nothing to draw on where little of the region lies
            if not left and found is None:
                raise
            continue
        mask = drawn.mask & region
        if found is None or mask.sum() > found.mask.sum():
            image = np.where(mask[..., None], drawn.image, picture)
            found = Synthetic(image, mask, drawn.strength, float(mask.mean()))
            if mask.any() and 2 * mask.sum() >= drawn.mask.sum():
                break
    if found is None or not found.mask.any():
        raise DataError(f"no anomaly lay inside the region of interest in {PLACES} tries; draw a larger region")
    return found


def _box(region: np.ndarray) -> tuple[slice, slice]:
    """The box around *region*, at least LEAST pixels a side where the picture has them, to draw in."""
    return _reach(np.any(region, axis=1)), _reach(np.any(region, axis=0))


def _reach(marked: np.ndarray) -> slice:
    """From the first to the last of *marked*, bool (N,), and evenly more on both sides up to LEAST."""
    first, last = np.flatnonzero(marked)[[0, -1]]
    side = max(last + 1 - first, min(LEAST, len(marked)))
    start = int(np.clip(first - (side - (last + 1 - first)) // 2, 0, len(marked) - side))
    return slice(start, start + int(side))


def _on(picture: np.ndarray, draw: Draw, most: int, rng: np.random.Generator) -> Synthetic:
    where, drawn = _placed(picture, draw, most, rng)
    image, mask = picture.copy(), np.zeros(picture.shape[:2], bool)
    image[where], mask[where] = drawn.image, drawn.mask
    return Synthetic(image, mask, drawn.strength, float(mask.mean()))


def _placed(
    picture: np.ndarray, draw: Draw, most: int, rng: np.random.Generator
) -> tuple[tuple[slice, slice], Synthetic]:
    """The first square of a few that *draw* makes something of, and what it made."""
    height, width = picture.shape[:2]
    for left in reversed(range(PLACES if height != width else 1)):
        where = _window(height, width, rng)
        try:
            return where, _reduced(np.ascontiguousarray(picture[where]), draw, most)
        except DataError:
            if not left:
                raise
    raise AssertionError("PLACES is at least 1")


def _window(height: int, width: int, rng: np.random.Generator) -> tuple[slice, slice]:
    side = min(height, width)
    top, left = (int(rng.integers(0, extent - side + 1)) for extent in (height, width))
    return slice(top, top + side), slice(left, left + side)


def _reduced(square: np.ndarray, draw: Draw, most: int) -> Synthetic:
    """*draw* on *square*; where that is larger than *most*, on a reduced copy, whose change is enlarged."""
    side = len(square)
    if side <= most:
        return draw(square)
    small = np.asarray(Image.fromarray(square).resize((most, most), Image.Resampling.BILINEAR))
    drawn, result = draw(small), np.empty_like(square)
    grey = all(map(is_grey, (square, small, drawn.image)))
    for channel in range(1 if grey else 3):  # one at a time: such pictures are large
        change = _enlarged(drawn.image[..., channel].astype(np.float32) - small[..., channel], side)
        found = square[..., channel] + change
        np.clip(np.rint(found, out=found), 0, 255, out=found)
        result[..., slice(None) if grey else slice(channel, channel + 1)] = found[..., None]
    return made(square, result, drawn.strength)


def _enlarged(change: np.ndarray, side: int) -> np.ndarray:
    """float32 (h, w) -> (side, side), bilinear."""
    return np.asarray(Image.fromarray(change).resize((side, side), Image.Resampling.BILINEAR))
