"""Confetti noise of FCDD (Liznerski et al., ICLR 2021)."""

import numpy as np

from components.synthesis import masks
from components.synthesis.blending import Synthetic, made, strength_of
from components.synthesis.settings import SynthesisSettings


def confetti(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """Soft bright and dark blobs in random colours."""
    strength = strength_of(rng, settings)
    noise = strength * masks.confetti(image.shape[:2], rng)
    return made(image, np.rint(image.astype(np.float32) + noise).clip(0, 255).astype(np.uint8), strength)
