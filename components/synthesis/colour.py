"""How much colour an anomaly may have: no more than the picture that it is on.

A grey camera gives grey defects, so on its pictures colour alone would give an anomaly away; a grey product before a
colour camera has a few levels of it, and so may its anomalies. A product with colour limits next to nothing.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from components.pictures.measuring import WEIGHTS
from components.synthesis.blending import Synthetic, made

MOST = 0.999  # quantile of the picture's colour: single hot pixels and a speck of dust do not make it a coloured one


def colour_of(image: np.ndarray) -> float:
    """Colour of nearly the most coloured pixel of a uint8 (H, W, 3) image, in levels; 0 where it is grey."""
    found = colourfulness(image)
    return _quantile(Image.fromarray(found).histogram(), MOST) if found.any() else 0.0


def _quantile(counts: Sequence[int], share: float) -> float:
    """``numpy.quantile`` of levels of which there are so many each, without a sorted copy of them."""
    until = np.cumsum(counts)
    at = share * (int(until[-1]) - 1)
    low = int(at)
    least, most = (int(np.searchsorted(until, place, side="right")) for place in (low, min(low + 1, until[-1] - 1)))
    return float(np.interp(at - low, (0, 1), (least, most)))


def colourfulness(image: np.ndarray) -> np.ndarray:
    """(..., 3) -> (...): largest less smallest channel of each pixel, in levels."""
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    return np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)


def within_colour(image: np.ndarray, found: Synthetic, limit: float) -> Synthetic:
    """*found* on *image*, its pixels of more colour than *limit* moved towards their own grey, to a level."""
    pixels = found.image[found.mask].astype(np.float32)
    colour = colourfulness(pixels)
    if not (colour > limit).any():
        return found
    grey = (pixels @ WEIGHTS)[:, None]
    share = np.minimum(1, limit / np.maximum(colour, 1))[:, None]
    result = found.image.copy()
    result[found.mask] = np.rint(grey + share * (pixels - grey)).clip(0, 255).astype(np.uint8)
    return made(image, result, found.strength)
