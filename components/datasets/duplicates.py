"""Near-duplicates: the same picture re-encoded, resized or shifted by a little, verified on pixels.

Uniform products look alike: the hash only proposes pairs. A pair counts when, at the best shift, the fine detail of the
pictures (grain, noise, scratches) agrees, not only the layout that all products share.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.fft import irfft2, rfft2
from scipy.ndimage import gaussian_filter

from components.decoding import decode

SIDE = 320  # longest side of the pictures that are compared; smaller ones keep their pixels
SHIFT = 12  # largest shift in these pixels that is looked for
GRAIN = 3.0  # sigma in these pixels: coarser structure than this is taken out


def near_duplicates(
    paths: list[Path], hashes: list[str], max_distance: int, min_correlation: float
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, correlation) of the same picture, i < j."""
    cache: dict[int, np.ndarray] = {}
    found = []
    for i, j in proposals(hashes, max_distance):
        for k in (i, j):
            if k not in cache:
                cache[k] = _grey(paths[k])
        correlation = similarity(cache[i], cache[j])
        if correlation >= min_correlation:
            found.append((i, j, round(correlation, 4)))
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


def similarity(one: np.ndarray, two: np.ndarray) -> float:
    """The correlation of detail in the part both grey pictures show, at the shift that fits best."""
    if one.shape != two.shape:  # a resized copy: both at the smaller size
        small = min(one.shape, two.shape)
        one, two = (np.asarray(Image.fromarray(p).resize(small[::-1], Image.Resampling.BICUBIC)) for p in (one, two))
    one, two = (p - gaussian_filter(p, GRAIN) for p in (one, two))
    cross = np.roll(irfft2(rfft2(one) * rfft2(two).conj(), s=one.shape), (SHIFT, SHIFT), (0, 1))
    dy, dx = np.unravel_index(np.argmax(cross[: 2 * SHIFT + 1, : 2 * SHIFT + 1]), (2 * SHIFT + 1,) * 2)
    a, b = _shared(one, two, int(dy) - SHIFT, int(dx) - SHIFT)
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-12))


def _shared(one: np.ndarray, two: np.ndarray, dy: int, dx: int) -> tuple[np.ndarray, np.ndarray]:
    """one[y + dy, x + dx] over two[y, x], where both exist."""
    h, w = one.shape
    a = one[max(0, dy) : h + min(0, dy), max(0, dx) : w + min(0, dx)]
    b = two[max(0, -dy) : h + min(0, -dy), max(0, -dx) : w + min(0, -dx)]
    return a, b
