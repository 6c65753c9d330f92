"""CutPaste and CutPaste-scar (Li, Sohn, Yoon, Pfister, CVPR 2021): a patch of the image in another place."""

import numpy as np

from components.synthesis import masks, sources
from components.synthesis.blending import Synthetic, blend, strength_of
from components.synthesis.settings import SynthesisSettings


def cutpaste(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A patch of the image moved elsewhere."""
    low, high = settings.area
    mask = masks.patch(image.shape[:2], rng.uniform(max(low, 0.02 * high), high), rng.uniform(1, 3.3), 0.0, rng)
    return blend(image, sources.moved(image, rng), mask, strength_of(rng, settings))


def scar(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A long thin patch, turned, of moved pixels with shifted brightness."""
    low, high = settings.area
    area = rng.uniform(low, min(high, 0.02))
    mask = masks.patch(image.shape[:2], area, rng.uniform(6, 20), rng.uniform(-90, 90), rng)
    tone = rng.uniform(20, 80) * rng.choice([-1, 1])
    source = (sources.moved(image, rng).astype(np.float32) + tone).clip(0, 255).astype(np.uint8)
    return blend(image, source, mask, strength_of(rng, settings))
