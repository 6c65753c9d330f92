"""What one exposure has and no other: its noise, as a fingerprint that survives encoding, resizing and cropping.

A sensor never makes the same noise twice, so two pictures with the same noise are one exposure, however alike or unlike
products are. As in the forensics of cameras (Lukas, Fridrich, Goljan, IEEE TIFS 2006) noise is what smoothing leaves,
with edges and strong texture weighed down. Of its spectrum only magnitudes are kept, which a shift does not change.
Working in the lower third of the frequencies is ours: that is what JPEG and resizing leave of noise.
"""

from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.fft import irfft2, rfft2
from scipy.ndimage import gaussian_filter, uniform_filter

SIDE = 320  # pixels of the square that is looked at; a larger picture is scaled down by its shorter side
GRAIN = 4.0  # sigma in pixels: coarser structure is taken out
AROUND = 7  # pixels over which the strength of what is left is measured
BAND = (0.03, 0.18)  # cycles per pixel
COUNT = 2048  # frequencies drawn from the band; two unrelated fingerprints correlate by 1 / sqrt(COUNT)
RINGS = 12  # widths of the band within which the spectrum is made flat
ROUNDING = 0.1  # variance in grey levels that rounding to whole levels leaves: no noise of a sensor
BLACK, WHITE = 0.5, 254.5  # grey levels at which a sensor or a rendering saturates
ALIVE = 0.5  # share of the pixels neither black nor white that must carry more than rounding
SMOOTH = 0.3  # share of those whose neighbours are all equal, from which on there is no noise
WINDOW = 512  # pixels of the square in which that is looked for
REACH = 16  # pixels by which a copy may be shifted
LEAST = 8  # pixels of a side that can be looked at


def fingerprint(grey: np.ndarray, scale: float) -> np.ndarray | None:
    """Logarithms of magnitudes (COUNT,) float32 of the noise of *grey* (H, W) uint8, read at *scale*.

    None where the picture carries no noise: a rendering, or one that coarse encoding has smoothed.
    """
    if _is_silent(grey):
        return None
    noise = _noise(working(grey, scale), min(1.0, scale))
    if noise is None:
        return None
    frame = np.zeros((SIDE, SIDE), np.float32)
    frame[: noise.shape[0], : noise.shape[1]] = noise
    picked, rings = _frequencies()
    magnitude = np.abs(rfft2(frame)).ravel()[picked]
    found = np.log(magnitude + 1e-3 * magnitude.mean() + 1e-12)
    level = np.bincount(rings, found) / np.bincount(rings)
    return (found - level[rings]).astype(np.float32)


def working(grey: np.ndarray, scale: float) -> np.ndarray:
    """The middle of the picture at *scale*, at most SIDE x SIDE, float32."""
    if (step := int(0.5 / scale)) > 1:  # whole pixels first: a large picture in float32 would fill the memory
        high, wide = (side // step for side in grey.shape)
        parts = grey[: high * step, : wide * step].reshape(high, step, wide, step)
        grey, scale = parts.mean((1, 3), dtype=np.float32), scale * step
    grey = grey.astype(np.float32)
    if abs(scale - 1) > 1e-3:
        height, width = (max(LEAST, round(side * scale)) for side in grey.shape)
        grey = np.asarray(Image.fromarray(grey).resize((width, height), Image.Resampling.BICUBIC))
    return _middle(grey, *(min(SIDE, side) for side in grey.shape))


class Looked(NamedTuple):
    """The middle of a picture, smoothed (H, W), and the spectrum of what smoothing took: what ``apart`` compares."""

    smooth: np.ndarray
    fine: np.ndarray


def looked(picture: np.ndarray, height: int, width: int) -> Looked:
    """The middle *height* x *width* of a picture that ``working`` made."""
    middle = _middle(picture, height, width)
    smooth = gaussian_filter(middle, GRAIN)
    return Looked(smooth, rfft2(middle - smooth))


def apart(first: Looked, second: Looked) -> float:
    """Median distance in grey levels of two smoothed pictures, where both show the same, at their best shift."""
    one, two = first.smooth, second.smooth
    height, width = one.shape
    down, right = _shift(first, second)
    rim = min(4 * int(GRAIN), min(height, width) // 4)
    a = one[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
    b = two[max(0, -down) : height + min(0, -down), max(0, -right) : width + min(0, -right)]
    far, level = abs(a - b)[rim:-rim, rim:-rim], a[rim:-rim, rim:-rim]
    lit = (level > BLACK) & (level < WHITE)  # where light cannot show itself, nothing is learned of it
    return float(np.median(far[lit])) if lit.any() else 0.0


def _middle(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    return picture[top : top + height, left : left + width]


def _shift(one: Looked, two: Looked) -> tuple[int, int]:
    """By how many pixels *one* lies below and right of *two*, REACH at most: the peak of their cross-correlation."""
    cross = irfft2(one.fine * two.fine.conj(), s=one.smooth.shape)
    reach = min(REACH, min(one.smooth.shape) // 4)
    cross = np.roll(cross, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    down, right = np.unravel_index(np.argmax(cross), cross.shape)
    return int(down) - reach, int(right) - reach


def _is_silent(grey: np.ndarray) -> bool:
    """Whether much of the picture is smooth to the last grey level, which no sensor is."""
    middle = _middle(grey, *(min(WINDOW, side) for side in grey.shape))
    lit = (middle > BLACK) & (middle < WHITE)
    smooth = _flat(middle) & lit
    return bool(smooth.sum() >= SMOOTH * max(1, lit.sum()))


def _flat(grey: np.ndarray) -> np.ndarray:
    """Where a pixel of (H, W) equals all its neighbours: those above and below, then the flat columns beside it."""
    below, beside = grey[1:] == grey[:-1], grey[:, 1:] == grey[:, :-1]
    column = np.ones(grey.shape, bool)
    column[1:] &= below
    column[:-1] &= below
    flat = column.copy()
    flat[:, 1:] &= beside & column[:, :-1]
    flat[:, :-1] &= beside & column[:, 1:]
    return flat


def _noise(grey: np.ndarray, scale: float) -> np.ndarray | None:
    """What smoothing leaves, weighed down where it is stronger than noise; None where it is mostly rounding."""
    rest = grey - gaussian_filter(grey, GRAIN)
    strength = uniform_filter(rest * rest, AROUND)
    lit = (grey > BLACK) & (grey < WHITE)
    alive = (strength > ROUNDING * scale * scale) & lit
    if not alive.any() or alive.sum() < ALIVE * lit.sum():
        return None
    level = np.quantile(strength[alive], 0.3)
    noise = rest * np.where(alive, np.minimum(1, level / np.maximum(strength, 1e-6)), 0)
    rim = min(6, min(grey.shape) // LEAST)  # where the filter sees beyond the picture
    noise[:rim], noise[-rim:], noise[:, :rim], noise[:, -rim:] = 0, 0, 0, 0
    return noise.astype(np.float32)


@cache
def _frequencies() -> tuple[np.ndarray, np.ndarray]:
    """The drawn frequencies as indices into a spectrum of SIDE x SIDE pixels, and the ring of each."""
    radius = np.hypot(np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)[None]).ravel()
    across = np.tile(np.fft.rfftfreq(SIDE) > 0, SIDE)  # the column without it holds each magnitude twice
    inside = np.flatnonzero((radius > BAND[0]) & (radius < BAND[1]) & across)
    picked = np.sort(np.random.default_rng(0).choice(inside, COUNT, replace=False))
    return picked, np.digitize(radius[picked], np.linspace(*BAND, RINGS + 1)) - 1
