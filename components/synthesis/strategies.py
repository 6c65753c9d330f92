"""How an anomaly is made of a mask, a source and a blend. Pixels outside the returned mask are untouched."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from components.synthesis import masks, sources


@dataclass(frozen=True)
class SynthesisSettings:
    """Resolution in pixels, how many per image, and the ranges that areas and strengths are drawn from."""

    size: int = 256
    per_image: int = 1
    strategies: tuple[str, ...] = ("perlin_texture", "perlin_self", "cutpaste", "scar")
    area: tuple[float, float] = (0.001, 0.1)  # share of the image
    strength: tuple[float, float] = (0.2, 1.0)  # weight of the source in the blend: 1 - beta of DRAEM
    textures: str | None = None  # a folder of texture images such as DTD; None: packaged and procedural ones


class Synthetic(NamedTuple):
    """uint8 (H, W, 3), bool (H, W), blend weight, share of anomalous pixels."""

    image: np.ndarray
    mask: np.ndarray
    strength: float
    area: float


def blend(image: np.ndarray, source: np.ndarray, mask: np.ndarray, strength: float) -> Synthetic:
    """I = (1 - M) A + M (strength T + (1 - strength) A), rounded; the mask keeps only pixels that changed."""
    mixed = np.rint(strength * source.astype(np.float32) + (1 - strength) * image.astype(np.float32))
    result = np.where(mask[..., None], mixed.clip(0, 255).astype(np.uint8), image)
    changed = (result != image).any(-1)
    return Synthetic(result, changed, strength, float(changed.mean()))


def perlin_texture(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A foreign texture in a Perlin shape (DRAEM)."""
    folder = Path(settings.textures) if settings.textures else None
    source = sources.texture(image.shape[0], folder, rng)
    return blend(image, source, masks.perlin(image.shape[:2], rng), _strength(rng, settings))


def perlin_self(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """The image's own tiles, rearranged, in a Perlin shape: structure in the wrong place."""
    source = sources.rearranged(image, rng)
    return blend(image, source, masks.perlin(image.shape[:2], rng), _strength(rng, settings))


def cutpaste(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A patch of the image moved elsewhere (CutPaste, Li et al., CVPR 2021)."""
    low, high = settings.area
    mask = masks.patch(image.shape[:2], rng.uniform(max(low, 0.02 * high), high), rng.uniform(1, 3.3), 0.0, rng)
    return blend(image, _moved(image, rng), mask, _strength(rng, settings))


def scar(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A long thin patch, turned, of moved pixels with shifted brightness (CutPaste-scar)."""
    low, high = settings.area
    area = rng.uniform(low, min(high, 0.02))
    mask = masks.patch(image.shape[:2], area, rng.uniform(6, 20), rng.uniform(-90, 90), rng)
    tone = rng.uniform(20, 80) * rng.choice([-1, 1])
    source = (_moved(image, rng).astype(np.float32) + tone).clip(0, 255).astype(np.uint8)
    return blend(image, source, mask, _strength(rng, settings))


def confetti(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """Soft bright and dark blobs in random colours (confetti noise of FCDD, Liznerski et al., ICLR 2021)."""
    strength = _strength(rng, settings)
    noise = strength * masks.confetti(image.shape[:2], rng)
    result = np.rint(image.astype(np.float32) + noise).clip(0, 255).astype(np.uint8)
    changed = (result != image).any(-1)
    return Synthetic(np.where(changed[..., None], result, image), changed, strength, float(changed.mean()))


STRATEGIES: dict[str, Callable[[np.ndarray, np.random.Generator, SynthesisSettings], Synthetic]] = {
    "perlin_texture": perlin_texture,
    "perlin_self": perlin_self,
    "cutpaste": cutpaste,
    "scar": scar,
    "confetti": confetti,
}


def _moved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image rolled by at least a quarter of its side and mirrored at random."""
    side = image.shape[0]
    shift = tuple(int(v) for v in rng.integers(side // 4, 3 * side // 4, 2))
    rolled = np.roll(image, shift, (0, 1))
    return np.asarray(Image.fromarray(rolled).rotate(90)) if rng.random() < 0.5 else rolled


def _strength(rng: np.random.Generator, settings: SynthesisSettings) -> float:
    return float(rng.uniform(*settings.strength))
