"""Simulated anomalies of PRN (Zhang et al., CVPR 2023): Perlin shapes on the product only.

Heterologous ones hold a foreign texture, homologous ones content of the same kind of product.
"""

import numpy as np
from PIL import Image

from components.synthesis import masks, sources
from components.synthesis.blending import Synthetic, blend, foreign, strength_of, unchanged
from components.synthesis.foreground import foreground
from components.synthesis.settings import SynthesisSettings


def heterologous(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A foreign texture, partly transparent."""
    mask, strength = _on_product(image, rng), strength_of(rng, settings)
    return blend(image, foreign(image, rng, settings), mask, strength) if mask.any() else unchanged(image, strength)


def homologous(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """The image itself, moved and augmented, partly transparent: stands for another normal image."""
    mask, strength = _on_product(image, rng), strength_of(rng, settings)
    if not mask.any():
        return unchanged(image, strength)
    source = sources.augment(Image.fromarray(sources.moved(image, rng)), rng)
    return blend(image, np.asarray(source), mask, strength)


def _on_product(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    mask = masks.perlin(image.shape[:2], rng)
    return mask & foreground(image) if mask.any() else mask
