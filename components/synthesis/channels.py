"""The channels of a picture one by one: three at once, in floats, take three times the memory; of a grey one once."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from components.pictures.measuring import is_grey


def by_channel(image: np.ndarray, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """What *change* makes of each channel (H, W) of *image* (H, W, C), side by side again."""
    if is_grey(image):
        return np.repeat(change(image[..., 0])[..., None], image.shape[-1], axis=-1)
    return np.stack([change(one) for one in np.moveaxis(image, -1, 0)], axis=-1)


def smoothed(image: np.ndarray, sigma: float) -> np.ndarray:
    """float32 (H, W, C): *image* without detail finer than *sigma* pixels."""
    return by_channel(image, lambda one: gaussian_filter(one.astype(np.float32), sigma, truncate=2.0))
