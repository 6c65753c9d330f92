"""Perlin anomalies of DRAEM (Zavrtanik, Kristan, Skočaj, ICCV 2021): a source in the shape of thresholded noise."""

import numpy as np

from components.synthesis import masks, sources
from components.synthesis.blending import Synthetic, blend, foreign, strength_of
from components.synthesis.settings import SynthesisSettings


def perlin_texture(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A foreign texture in a Perlin shape (DRAEM)."""
    source = foreign(image, rng, settings)
    return blend(image, source, masks.perlin(image.shape[:2], rng), strength_of(rng, settings))


def perlin_self(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """The image's own tiles, rearranged, in a Perlin shape: structure in the wrong place."""
    source = sources.rearranged(image, rng)
    return blend(image, source, masks.perlin(image.shape[:2], rng), strength_of(rng, settings))
