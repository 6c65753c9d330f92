"""Near-duplicates: the same picture re-encoded, resized or shifted by a little, verified on pixels.

Uniform products look alike: the hash only proposes pairs. A pair counts when, at the best shift, the fine detail of the
pictures (grain, noise, scratches) agrees, not only the layout that all products share; or when hardly a grey level
separates them, as after coarse JPEG encoding, which destroys that detail. docs/data.md shows what this tells apart.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.fft import irfft2, rfft2
from scipy.ndimage import correlate1d, gaussian_filter

from components.decoding import decode
from components.progress import progress

SIDE = 320  # longest side of the pictures that are compared; smaller ones keep their pixels
SHIFT = 12  # largest shift in these pixels that is looked for
GRAIN = 3.0  # sigma in these pixels: coarser structure than this is taken out
EDGE = 9  # pixels at the rim where the filter sees beyond the picture
KEPT = 1000  # pictures held in memory, 0.8 MB each
RELATED = 0.75  # correlation of detail below which a small difference only says that the pictures are flat


class Likeness(NamedTuple):
    """How alike two pictures are at their best shift."""

    detail: float  # correlation of the fine detail
    difference: float  # RMS in grey levels of 255, brightness taken out

    def same(self, detail: float, difference: float) -> bool:
        """True when the detail agrees, or when next to nothing differs and the detail does not contradict."""
        return self.detail >= detail or (self.difference <= difference and self.detail >= RELATED)


class Picture(NamedTuple):
    """A grey picture (H, W) float32 and its fine detail."""

    grey: np.ndarray
    fine: np.ndarray

    @classmethod
    def of(cls, grey: np.ndarray) -> "Picture":
        return cls(grey, grey - gaussian_filter(grey, GRAIN))


def near_duplicates(
    paths: list[Path], hashes: list[str], max_distance: int, detail: float, difference: float
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, correlation of detail) of the same picture, i < j; thresholds as in ``Likeness.same``."""

    @lru_cache(maxsize=KEPT)
    def picture(k: int) -> Picture:
        return Picture.of(_grey(paths[k]))

    found = []
    for i, j in progress(proposals(hashes, max_distance), "comparing look-alikes for copies"):
        likeness = _compare(picture(i), picture(j), detail, difference)
        if likeness.same(detail, difference):
            found.append((i, j, round(likeness.detail, 4)))
    return found


def proposals(hashes: list[str], max_distance: int) -> list[tuple[int, int]]:
    """Pairs whose 64-bit hashes differ in at most *max_distance* bits."""
    bits = np.unpackbits(np.array([list(bytes.fromhex(h)) for h in hashes], np.uint8).reshape(-1, 8), axis=1)
    signs = bits.astype(np.float32) * 2 - 1
    distance = (64 - signs @ signs.T) / 2
    first, second = np.nonzero(np.triu(distance <= max_distance, 1))
    return list(zip(first.tolist(), second.tolist(), strict=True))


def _grey(path: Path) -> np.ndarray:
    image = Image.fromarray(decode(path)).convert("L")
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def compare(one: np.ndarray, two: np.ndarray) -> Likeness:
    """The likeness of two grey pictures in the part both show, at the shift that fits best."""
    return _compare(Picture.of(one), Picture.of(two), np.inf, -np.inf)


def _compare(one: Picture, two: Picture, detail: float, difference: float) -> Likeness:
    """``compare``, content with whole pixels when those already show the same picture."""
    if one.grey.shape != two.grey.shape:  # a resized copy: both at the smaller size
        small = min(one.grey.shape, two.grey.shape)
        one, two = (Picture.of(_resized(p.grey, small)) for p in (one, two))
    shift, rest = _best_shift(one.fine, two.fine)
    whole = _likeness(one, two, shift)
    if whole.same(detail, difference):
        return whole
    # A shift in pixels of the file is none in pixels of the reduced picture; but interpolating costs detail.
    return max(whole, _likeness(Picture(_moved(one.grey, rest), _moved(one.fine, rest)), two, shift))


def _resized(grey: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.asarray(Image.fromarray(grey).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))


def _likeness(one: Picture, two: Picture, shift: tuple[int, int]) -> Likeness:
    a, b = (p - p.mean() for p in _shared(one.fine, two.fine, *shift))
    c, d = (p - p.mean() for p in _shared(one.grey, two.grey, *shift))
    detail = float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-12))
    return Likeness(detail, float(np.sqrt(np.square(c - d).mean())))


def _best_shift(one: np.ndarray, two: np.ndarray) -> tuple[tuple[int, int], tuple[float, float]]:
    """Whole pixels and the rest of a pixel by which *one* lies off *two*, from the peak of their cross-correlation."""
    reach = SHIFT + 1
    cross = np.roll(irfft2(rfft2(one) * rfft2(two).conj(), s=one.shape), (reach, reach), (0, 1))
    cross = cross[: 2 * reach + 1, : 2 * reach + 1]
    y, x = (int(i) + 1 for i in np.unravel_index(np.argmax(cross[1:-1, 1:-1]), (2 * SHIFT + 1,) * 2))
    return (y - reach, x - reach), (_peak(cross[y - 1 : y + 2, x]), _peak(cross[y, x - 1 : x + 2]))


def _peak(values: np.ndarray) -> float:
    """Where the parabola through three values peaks, from the middle one."""
    before, middle, after = values
    bend = before - 2 * middle + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def _moved(picture: np.ndarray, rest: tuple[float, float]) -> np.ndarray:
    """*picture* read a part of a pixel further on, by Lanczos interpolation."""
    for axis, part in enumerate(rest):
        offsets = np.arange(-3, 4) - part
        kernel = np.sinc(offsets) * np.sinc(offsets / 3) * (np.abs(offsets) < 3)
        picture = correlate1d(picture, kernel / kernel.sum(), axis)
    return picture


def _shared(one: np.ndarray, two: np.ndarray, dy: int, dx: int) -> tuple[np.ndarray, np.ndarray]:
    """one[y + dy, x + dx] over two[y, x], where both exist, without the rim."""
    h, w = one.shape
    a = one[max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)]
    b = two[max(0, -dy) : h + min(0, -dy), max(0, -dx) : w + min(0, -dx)]
    return a[EDGE:-EDGE, EDGE:-EDGE], b[EDGE:-EDGE, EDGE:-EDGE]
