"""What every strategy shares: settings, result, and how a source is mixed into an image under a mask."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.synthesis import sources
from components.synthesis.settings import SynthesisSettings


class Synthetic(NamedTuple):
    """uint8 (H, W, 3), bool (H, W), blend weight, share of anomalous pixels; an empty mask is no anomaly."""

    image: np.ndarray
    mask: np.ndarray
    strength: float
    area: float


Strategy = Callable[[np.ndarray, np.random.Generator, SynthesisSettings], Synthetic]


def blend(image: np.ndarray, source: np.ndarray, mask: np.ndarray, strength: float) -> Synthetic:
    """I = (1 - M) A + M (strength T + (1 - strength) A), rounded; the mask keeps only pixels that changed."""
    before = image[mask]
    mixed = np.rint(strength * source[mask].astype(np.float32) + (1 - strength) * before.astype(np.float32))
    after = mixed.clip(0, 255).astype(np.uint8)
    result, changed = image.copy(), np.zeros(image.shape[:2], bool)
    result[mask], changed[mask] = after, differing(after, before)
    return Synthetic(result, changed, strength, float(changed.mean()))


def dissolve(image: np.ndarray, source: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """uint8 image with *source* (float, any range) mixed in by *weight* (H, W) in [0, 1]: soft edges."""
    mixed = np.rint(image + weight[..., None] * (source - image))
    return mixed.clip(0, 255).astype(np.uint8)


def made(image: np.ndarray, result: np.ndarray, strength: float) -> Synthetic:
    """The record of *result* made on *image*; anomalous is exactly what differs."""
    changed = differing(result, image)
    return Synthetic(result, changed, strength, float(changed.mean()))


def differing(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """(..., 3) -> bool (...): where any channel differs; channel by channel, which is sooner than ``any``."""
    apart = one != other
    return np.asarray(apart[..., 0] | apart[..., 1] | apart[..., 2])


def unchanged(image: np.ndarray, strength: float) -> Synthetic:
    """No anomaly came of this draw: saves the source and the blend, and ``make`` draws again."""
    return Synthetic(image, np.zeros(image.shape[:2], bool), strength, 0.0)


def strength_of(rng: np.random.Generator, settings: SynthesisSettings) -> float:
    return float(rng.uniform(*settings.strength))


def folder_of(settings: SynthesisSettings) -> Path | None:
    return Path(settings.textures) if settings.textures else None


def foreign(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> np.ndarray:
    """An augmented texture of another origin, as large as *image*."""
    return sources.texture(image.shape[0], folder_of(settings), rng)
