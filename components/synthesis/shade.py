"""Shades: a wide area of the product that is darker or brighter, and rougher or smoother, than it should be.

No publication's recipe. It stands for uneven grinding, stains and worn coats, which cover far more of an image than the
Perlin shapes and patches of the other strategies do, and whose inside looks like a product: an edge tells of them, and
the area has to be filled from it. Areas and strengths have their own ranges. Lengths are pixels of a 256 x 256 image.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from components.synthesis import masks, sources
from components.synthesis.blending import Synthetic, dissolve, made, unchanged
from components.synthesis.channels import smoothed
from components.synthesis.foreground import foreground
from components.synthesis.settings import SynthesisSettings

AREA = (0.01, 0.5)  # share of the image: what is left on the product of the highest ...
SHARE = (0.03, 0.5)  # ... of coarse noise, or of a rectangle twice as large, which reaches over the border
SMALL = 0.05  # share of the image: no part of a smaller product is wide, so the whole image counts
CELLS = 1  # Perlin noise of 1 to 2 ** CELLS cells per axis: few, wide blobs
ASPECT, TILT = 4.5, 5.0  # of a rectangle: long side over short at most, degrees off the image's axes (deviation)
EDGE = (0.3, 6.0)  # sigma of the edge
FAINT = 0.3  # where the soft edge weighs less nothing changes, lest the mask be wider than what is seen
STRENGTH = (0.5, 1.0)
TONE = 60.0  # grey levels, up or down, at most
ROUGHNESS = (0.3, 3.0)  # factor on the detail finer than FINE
FINE = 4.0  # sigma
SEEN = 8.0  # grey levels of mean change from which on the area can be seen


def shade(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:  # noqa: ARG001
    """Another brightness, another roughness and, every other time, detail from elsewhere in the image."""
    strength, area = float(rng.uniform(*STRENGTH)), wide_area(image, rng)
    if not area.any():
        return unchanged(image, strength)
    sigma = np.exp(rng.uniform(*np.log(EDGE))) * image.shape[0] / 256
    weight = gaussian_filter(area.astype(np.float32), sigma, truncate=2.0)
    result = dissolve(image, finish(image, rng), strength * np.where(weight > FAINT, weight, 0))
    change = np.abs(result[area].astype(int) - image[area]).mean()
    return made(image, result, strength) if change >= SEEN else unchanged(image, strength)


def wide_area(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bool (H, W): what of a wide area lies on the product; may be empty."""
    product = foreground(image)
    return _area(image.shape[:2], rng) & (product | (product.mean() < SMALL))


def _area(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Bool (H, W): the highest places of coarse noise, or a rectangle nearly along the axes."""
    share = rng.uniform(*SHARE)
    if rng.random() < 0.5:
        noise = masks.turned_noise(shape, rng, CELLS)
        return noise > np.quantile(noise, 1 - share)
    angle = rng.choice([0.0, 90.0]) + rng.normal(0, TILT)
    return masks.patch(shape, 2 * share, np.exp(rng.uniform(0, np.log(ASPECT))), angle, rng)


def finish(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """float32 (H, W, 3): the image with its own or moved detail, that weaker or stronger, all darker or brighter."""
    coarse = _coarse(image)
    moved = sources.moved(image, rng) if rng.random() < 0.5 else None
    fine = image - coarse if moved is None else moved - _coarse(moved)
    return coarse + np.exp(rng.uniform(*np.log(ROUGHNESS))) * fine + rng.uniform(-TONE, TONE)


def _coarse(image: np.ndarray) -> np.ndarray:
    sigma = FINE * image.shape[0] / 256
    return smoothed(image, sigma)
