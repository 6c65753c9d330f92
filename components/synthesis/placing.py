"""An anomaly on a picture of any shape and size, at the picture's own resolution.

Nothing but the anomaly differs from the picture, so that what reads the result has nothing else to go by
(docs/adr/0023-one-chain.md).
"""

from collections.abc import Callable

import numpy as np
from PIL import Image

from components.core.errors import DataError
from components.synthesis.blending import Synthetic, made

PLACES = 10  # squares that are tried: on an empty part of a long picture some strategies change nothing

Draw = Callable[[np.ndarray], Synthetic]  # on a square, uint8 (side, side, 3)


def on_picture(picture: np.ndarray, draw: Draw, most: int, rng: np.random.Generator) -> Synthetic:
    """*draw* in a square of the shorter side of *picture*, uint8 (H, W, 3), at a random place; the rest is untouched.

    It draws on *most* pixels a side at most; the area of the result is its share of the whole picture. Raises
    DataError.
    """
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
    drawn, result = draw(small), square.copy()
    for channel in range(3):  # one at a time: such pictures are large
        change = _enlarged(drawn.image[..., channel].astype(np.float32) - small[..., channel], side)
        result[..., channel] = np.rint(square[..., channel] + change).clip(0, 255)
    return made(square, result, drawn.strength)


def _enlarged(change: np.ndarray, side: int) -> np.ndarray:
    """float32 (h, w) -> (side, side), bilinear."""
    return np.asarray(Image.fromarray(change).resize((side, side), Image.Resampling.BILINEAR))
