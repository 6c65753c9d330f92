"""Where the product is: pixels unlike the picture's border, or everywhere if none stand apart."""

import numpy as np
from PIL import Image
from scipy.ndimage import binary_fill_holes, gaussian_filter
from skimage.filters import threshold_otsu

SIDE = 64  # working resolution: finer detail is not the outline of a product
LEAST = 0.01  # share of the image that is worth being called a product
AT_BORDER = 0.3  # a product reaches the border less often, by this factor at least, than it fills the image


def standing_out(image: np.ndarray) -> np.ndarray:
    """The product as bool (side, side), side <= SIDE; empty on a texture that fills the picture.

    Otsu's threshold of how far the local colour is from the border's median colour (the border taken for background).
    """
    side = min(SIDE, *image.shape[:2])
    small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX)).astype(np.float32)
    level = _from_border(gaussian_filter(small, (1, 1, 0)))
    if level.max() == level.min():
        return np.zeros((side, side), bool)
    found = binary_fill_holes(level > threshold_otsu(level))
    sensible = found.mean() >= LEAST and _border(found).mean() <= AT_BORDER * found.mean()
    return found if sensible else np.zeros((side, side), bool)


def foreground(image: np.ndarray) -> np.ndarray:
    """bool (H, W); everything where no product stands out."""
    found = standing_out(image)
    return grown(found, image.shape[:2]) > 0.5 if found.any() else np.ones(image.shape[:2], bool)


def grown(small: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A map (h, w) in [0, 1] as float32 of the image's *shape* (H, W), bilinear."""
    pixels = Image.fromarray(np.asarray(small, np.float32))
    return np.asarray(pixels.resize((shape[1], shape[0]), Image.Resampling.BILINEAR))


def _from_border(small: np.ndarray) -> np.ndarray:
    return np.linalg.norm(small - np.median(_border(small), axis=0), axis=-1)


def _border(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values[0], values[-1], values[1:-1, 0], values[1:-1, -1]])
