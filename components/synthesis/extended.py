"""Extended anomalies of PRN (Zhang et al., CVPR 2023): a real defect, changed, on another normal image.

They need real anomalous images with masks, which must be taken out of the evaluation; so this is not in STRATEGIES.
Which changes the publication draws from is not known: ten usual ones of geometry and tone, three at a time.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter
from scipy.ndimage import find_objects, label, map_coordinates

from components.core.errors import DataError
from components.synthesis.blending import Synthetic, made
from components.synthesis.colour import colour_of, within_colour
from components.synthesis.foreground import foreground
from components.synthesis.settings import SynthesisSettings

CHANGES = 3  # of the ten below, without replacement
INSIDE = 2 / 3  # a region with this share of it on the product stays where it is
TRIES = 20

Pair = tuple[np.ndarray, np.ndarray]  # uint8 (H, W, 3), bool (H, W)


def extended(
    image: np.ndarray, defect: np.ndarray, mask: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings
) -> Synthetic:
    """The region *mask* (bool (H, W)) of *defect* on the normal *image*, opaque, on the product; all of one shape.

    It gets no more colour than *image* has. Drawn again until the least area of the settings shows, or half of the
    region where it is smaller. Raises DataError.
    """
    least = min(settings.area[0], mask.mean() / 2)
    where, colour = foreground(image), colour_of(image)
    for _ in range(TRIES if mask.any() else 0):
        content, region = placed(*changed(defect, mask, rng), where, rng)
        pasted = made(image, np.where(region[..., None], content, image), 1.0)
        result = within_colour(image, pasted, colour)
        if result.area >= least and result.mask.any():
            return result
    raise DataError("extended: the mask is empty or its region shows nowhere on the normal image; give another one")


def changed(defect: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """The anomalous image and its mask after three of the changes."""
    pair = defect, mask
    for index in rng.choice(len(ALL), CHANGES, replace=False):
        pair = ALL[index](*pair, rng)
    return pair


def placed(content: np.ndarray, region: np.ndarray, where: np.ndarray, rng: np.random.Generator) -> Pair:
    """Content and region as they are if enough lies in *where*, else each connected part centred on a point of it."""
    if (region & where).sum() >= INSIDE * region.sum():
        return content, region
    parts, _ = label(region, np.ones((3, 3)))
    moved, taken = np.zeros_like(content), np.zeros_like(region)
    targets = np.argwhere(where)
    for number, box in enumerate(find_objects(parts), 1):
        part = parts[box] == number
        corner = [
            _inside(t - s // 2, s, whole)
            for t, s, whole in zip(targets[rng.integers(len(targets))], part.shape, region.shape, strict=True)
        ]
        there = tuple(slice(c, c + s) for c, s in zip(corner, part.shape, strict=True))
        moved[there][part], taken[there][part] = content[box][part], True
    return moved, taken


def _inside(start: int, extent: int, whole: int) -> int:
    return int(np.clip(start, 0, whole - extent))


def _turn(defect: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    quarters = int(rng.integers(1, 4)) if mask.shape[0] == mask.shape[1] else 2
    return np.rot90(defect, quarters), np.rot90(mask, quarters)


def _mirror(defect: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    axis = int(rng.integers(2))
    return np.flip(defect, axis), np.flip(mask, axis)


def _affine(defect: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """Shift by up to 1/16 of the side, scale by up to a fifth, turn by up to 45 degrees."""
    angle, scale = np.deg2rad(rng.uniform(-45, 45)), rng.uniform(0.8, 1.2)
    shift = rng.uniform(-0.0625, 0.0625, (2, 1, 1)) * np.array(mask.shape)[:, None, None]
    y, x = _centred(mask.shape)
    turned = np.stack([np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x]) / scale
    return _warped(defect, mask, turned + shift + _middle(mask.shape))


def _lens(defect: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """Barrel or pincushion distortion of up to 30 % at the rim."""
    h, w = mask.shape
    grid = _centred(mask.shape)
    radius = (grid[0] / (h / 2)) ** 2 + (grid[1] / (w / 2)) ** 2
    return _warped(defect, mask, grid * (1 + rng.uniform(-0.15, 0.15) * radius) + _middle(mask.shape))


def _wave(defect: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """Each row and column displaced by a sine of up to 3 % of the side."""
    size = np.array(mask.shape)[:, None, None]
    grid = _centred(mask.shape)
    phase, turns = rng.uniform(0, 2 * np.pi, (2, 1, 1)), rng.uniform(1, 4, (2, 1, 1))
    wave = np.sin(2 * np.pi * turns * grid[::-1] / size[::-1] + phase)
    return _warped(defect, mask, grid + 0.03 * size * rng.uniform(-1, 1, (2, 1, 1)) * wave + _middle(mask.shape))


def _noise(defect: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    noisy = defect + rng.normal(0, rng.uniform(3, 12), (*mask.shape, 1))
    return np.rint(noisy).clip(0, 255).astype(np.uint8), mask


def _blur(defect: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    return np.asarray(Image.fromarray(defect).filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.5)))), mask


def _sharpen(defect: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    return np.asarray(ImageEnhance.Sharpness(Image.fromarray(defect)).enhance(rng.uniform(1.5, 3))), mask


def _tone(defect: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    brighter = ImageEnhance.Brightness(Image.fromarray(defect)).enhance(rng.uniform(0.8, 1.2))
    return np.asarray(ImageEnhance.Contrast(brighter).enhance(rng.uniform(0.8, 1.2))), mask


def _colour(defect: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Pair:
    """Hue shifted by up to 20 of 256 steps, saturation by up to 30; grey stays grey."""
    hue, saturation, value = (np.asarray(c) for c in Image.fromarray(defect).convert("HSV").split())
    shifted = (hue + rng.integers(-20, 21)) % 256
    strong = np.where(saturation > 0, (saturation + rng.integers(-30, 31)).clip(0, 255), 0)
    channels = [Image.fromarray(c.astype(np.uint8)) for c in (shifted, strong, value)]
    return np.asarray(Image.merge("HSV", channels).convert("RGB")), mask


def _centred(shape: tuple[int, ...]) -> np.ndarray:
    """(2, H, W): row and column from the middle of the image."""
    return np.indices(shape) - _middle(shape)


def _middle(shape: tuple[int, ...]) -> np.ndarray:
    return ((np.array(shape) - 1) / 2)[:, None, None]


def _warped(defect: np.ndarray, mask: np.ndarray, at: np.ndarray) -> Pair:
    """Looked up at the positions (2, H, W); what comes from beyond the image belongs to no region."""
    channels = [map_coordinates(defect[..., c], at, order=1, mode="reflect") for c in range(defect.shape[2])]
    return np.stack(channels, -1), map_coordinates(mask, at, order=0, mode="constant")


ALL: tuple[Callable[[np.ndarray, np.ndarray, np.random.Generator], Pair], ...] = (
    _turn,
    _mirror,
    _affine,
    _lens,
    _wave,
    _noise,
    _blur,
    _sharpen,
    _tone,
    _colour,
)
