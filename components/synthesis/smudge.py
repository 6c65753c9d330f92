"""Smudges of DSR (Zavrtanik, Kristan, Skočaj, ECCV 2022), from the stage that learns to sharpen its map."""

import numpy as np

from components.synthesis import masks
from components.synthesis.blending import Synthetic, blend, strength_of
from components.synthesis.settings import SynthesisSettings


def smudge(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """One random colour in a Perlin shape, partly transparent."""
    mask, colour = masks.perlin(image.shape[:2], rng), rng.uniform(0, 255, 3).round()
    return blend(image, np.broadcast_to(colour, image.shape), mask, strength_of(rng, settings))
