"""Good pictures as they may come tomorrow: a little brighter, softer, noisier, moved or turned. They must not alarm.

No publication's recipe. What a line sees from day to day is no defect, and a detector that calls it one is no choice
for a line, however well it finds defects. Amounts are small and of the picture's own scale.
"""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter, rotate, shift

from components.synthesis.channels import by_channel

GAIN = (0.04, 0.08)  # brighter or darker by this share
SOFT = 1 / 400  # sigma of a slight defocus, share of the shorter side
NOISE = 3.0  # grey levels, deviation
SHIFT = (0.005, 0.015)  # share of the shorter side
TURN = (0.5, 1.5)  # degrees

Nuisance = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def gain(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another exposure."""
    return _bytes(np.arange(256) * (1 + _either(rng, GAIN)))[image]


def blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: ARG001  (one of many)
    """A lens slightly out of focus."""
    sigma = SOFT * min(image.shape[:2])
    return by_channel(image, lambda one: _bytes(gaussian_filter(one.astype(np.float32), sigma, truncate=3.0)))


def noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A noisier sensor, the same in all channels."""
    found = np.empty_like(image)
    for row, made in zip(image, found, strict=True):  # a row at a time: a large picture in floats takes much memory
        made[:] = _bytes(row + rng.normal(0, NOISE, (len(row), 1)))
    return found


def moved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The part lies a little elsewhere."""
    way, by = rng.uniform(0, 2 * np.pi), rng.uniform(*SHIFT) * min(image.shape[:2])
    return by_channel(image, lambda one: shift(one, (by * np.sin(way), by * np.cos(way)), order=1, mode="mirror"))


def turned(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The part is a little turned."""
    angle = _either(rng, TURN)
    return by_channel(image, lambda one: rotate(one, angle, reshape=False, order=1, mode="mirror"))


NUISANCES: dict[str, Nuisance] = {"gain": gain, "blur": blur, "noise": noise, "moved": moved, "turned": turned}


def _either(rng: np.random.Generator, amounts: tuple[float, float]) -> float:
    return float(rng.uniform(*amounts) * rng.choice([-1, 1]))


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.rint(image).clip(0, 255).astype(np.uint8)
