"""General artificial anomalies after CMA-AE: part of an unrelated photograph in a Perlin shape.

The publication's recipe is not known in detail: reconstructed. ``natural`` pastes opaquely; ``natural_blended`` is the
nearer kind that an opaque paste alone leaves out.
"""

import numpy as np
from PIL import Image

from components.synthesis import masks, sources
from components.synthesis.blending import Synthetic, blend, folder_of, strength_of, unchanged
from components.synthesis.settings import SynthesisSettings

OWN = 0.5  # share of blended anomalies made of the image's own tiles


def natural(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A photograph, augmented three times, pasted opaquely."""
    mask = masks.perlin(image.shape[:2], rng)
    return blend(image, _photograph(image, rng, settings), mask, 1.0) if mask.any() else unchanged(image, 1.0)


def natural_blended(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A photograph or the image's own tiles, partly transparent."""
    mask, strength = masks.perlin(image.shape[:2], rng), strength_of(rng, settings)
    if not mask.any():
        return unchanged(image, strength)
    own = rng.random() < OWN
    source = sources.rearranged(image, rng) if own else _photograph(image, rng, settings)
    return blend(image, source, mask, strength)


def _photograph(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> np.ndarray:
    photograph = sources.photograph(image.shape[0], folder_of(settings), rng)
    return np.asarray(sources.augment(Image.fromarray(photograph), rng))
