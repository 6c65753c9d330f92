"""Heat maps drawn over their image, on the scale of normal images; numpy and Pillow only."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from components.pictures.clips import target
from components.pictures.framing import outline, region

BORDER = (0, 200, 255)  # the line around the region of interest, RGB


def overlay(pixels: np.ndarray, heat: np.ndarray, scale: Mapping[str, float], roi: str | None = None) -> bytes:
    """PNG of (H, W, 3) uint8, or of the last frame of a window, with *heat* (H, W) in red and yellow where it exceeds
    what normal images show.

    *scale* is ``map`` of calibration.json: nothing is drawn below its 0.99 quantile, full colour from twice its
    maximum's distance on. Outside the region of interest the picture stays as it is, behind a thin line.
    """
    pixels = target(pixels)
    low, high = float(scale["0.99"]), float(scale["1.0"])
    strength = np.clip((heat - low) / max(2 * (high - low), 1e-12), 0, 1)[..., None]
    colour = np.concatenate([np.full_like(strength, 255), 255 * strength, np.zeros_like(strength)], 2)
    counts = region(roi, pixels.shape)
    if counts is not None:
        strength = strength * counts[..., None]
    drawn = pixels * (1 - 0.6 * np.sqrt(strength)) + colour * 0.6 * np.sqrt(strength)
    if counts is not None:
        drawn[outline(counts)] = BORDER
    stream = io.BytesIO()
    Image.fromarray(drawn.clip(0, 255).astype(np.uint8)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
