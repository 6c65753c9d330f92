"""Saliency augmentation of SGSF (Xing, Sun, Li, arXiv 2209.12440; Xing et al., IEEE TCSVT 34(6), 2024).

The publication's saliency comes from a trained network; here it is the blurred outline of ``foreground.standing_out``.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from components.synthesis import masks
from components.synthesis.blending import Synthetic, blend, foreign, unchanged
from components.synthesis.foreground import grown, standing_out
from components.synthesis.settings import SynthesisSettings

ALPHA = (0.1, 1.0)  # weight of the texture
BASE, SLOPE = 0.4, 0.2  # threshold of the noise at no salient area, and how it grows with its share


def saliency(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A foreign texture where Perlin noise weighted by saliency is high. One clean image to three of these."""
    mask = forged(salient(image), masks.turned_noise(image.shape[:2], rng))
    strength = float(rng.uniform(*ALPHA))
    if not mask.any():
        return unchanged(image, strength)
    return blend(image, foreign(image, rng, settings), mask, strength)


def salient(image: np.ndarray) -> np.ndarray:
    """float (H, W) in [0, 1], largest value 1; all zero on a texture without an object."""
    soft = gaussian_filter(standing_out(image).astype(np.float32), 1.0, mode="nearest")
    return grown(soft / max(soft.max(), 1e-6), image.shape[:2])


def forged(salience: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Where the noise, weighted by *salience* if there is any, exceeds 0.4 + 0.2 x the salient share."""
    weighted = salience * noise if salience.any() else noise
    return weighted > BASE + SLOPE * salience.mean()
