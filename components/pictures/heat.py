"""Heat maps drawn over their image, on the scale of normal images; numpy and Pillow only."""

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image

from components.pictures.clips import target
from components.pictures.framing import outline, region

BORDER = (0, 200, 255)  # the line around the region of interest, RGB


GREY = 140  # of the picture below a legend's ramp
LIMIT = 0.5  # the place on the ramp of the most that a normal image showed


def squeezed(heat: np.ndarray, side: int) -> np.ndarray:
    """A map (H, W) as (side, side) float32, bilinear."""
    if heat.shape == (side, side):
        return heat
    return np.asarray(Image.fromarray(heat).resize((side, side), Image.Resampling.BILINEAR))


def overlay(pixels: np.ndarray, heat: np.ndarray, scale: Mapping[str, float], roi: str | None = None) -> bytes:
    """``painted`` as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(painted(pixels, heat, scale, roi)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def painted(pixels: np.ndarray, heat: np.ndarray, scale: Mapping[str, float], roi: str | None = None) -> np.ndarray:
    """(H, W, 3) uint8, or the last frame of a window, with *heat* (H, W) in red and yellow where it exceeds what normal
    images show.

    *scale* is ``map`` of calibration.json: nothing is drawn below its 0.99 quantile, full colour from twice its
    maximum's distance on. Outside the region of interest the picture stays as it is, behind a thin line.
    """
    pixels = target(pixels)
    low, high = ends(scale)
    strength = np.clip((heat - low) / max(high - low, 1e-12), 0, 1)[..., None]
    colour = np.concatenate([np.full_like(strength, 255), 255 * strength, np.zeros_like(strength)], 2)
    counts = region(roi, pixels.shape)
    if counts is not None:
        strength = strength * counts[..., None]
    drawn = pixels * (1 - 0.6 * np.sqrt(strength)) + colour * 0.6 * np.sqrt(strength)
    if counts is not None:
        drawn[outline(counts)] = BORDER
    return np.asarray(drawn.clip(0, 255).astype(np.uint8))


def ends(scale: Mapping[str, float]) -> tuple[float, float]:
    """Where colour begins and where it is full; the most that a normal image showed lies at LIMIT between the two."""
    low, most = float(scale["0.99"]), float(scale["1.0"])
    return low, low + (most - low) / LIMIT


def ramp(n: int) -> np.ndarray:
    """(n, 3) uint8: the colours between ``ends`` over a grey picture, for a legend."""
    unit = {"0.99": 0.0, "1.0": LIMIT}
    return painted(np.full((1, n, 3), GREY, np.uint8), np.linspace(0, 1, n)[None], unit)[0]
