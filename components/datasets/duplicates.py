"""Near-duplicates: the same picture re-encoded, resized or shifted by a little, verified on pixels.

Uniform products look alike: the hash only proposes pairs. A pair counts when, after the best small shift, the
pictures agree in their own detail (correlation of the high-pass images), not only in what all products share.
"""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from components.imaging import decode

SIDE = 64  # side of the pictures that are compared
SHIFT = 4  # largest shift in these pixels that is looked for


def near_duplicates(
    paths: list[Path], hashes: list[str], max_distance: int, min_correlation: float
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, correlation) of the same picture, i < j."""
    cache: dict[int, np.ndarray] = {}
    found = []
    for i, j in _proposals(hashes, max_distance):
        for k in (i, j):
            if k not in cache:
                cache[k] = _detail(paths[k])
        correlation = _best_correlation(cache[i], cache[j])
        if correlation >= min_correlation:
            found.append((i, j, round(correlation, 4)))
    return found


def _proposals(hashes: list[str], max_distance: int) -> list[tuple[int, int]]:
    bits = np.unpackbits(np.array([list(bytes.fromhex(h)) for h in hashes], np.uint8).reshape(-1, 8), axis=1)
    signs = bits.astype(np.float32) * 2 - 1
    distance = (64 - signs @ signs.T) / 2
    first, second = np.nonzero(np.triu(distance <= max_distance, 1))
    return list(zip(first.tolist(), second.tolist(), strict=True))


def _detail(path: Path) -> np.ndarray:
    image = Image.fromarray(decode(path)).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = np.asarray(image, np.float64)
    return grey - gaussian_filter(grey, 3)


def _best_correlation(one: np.ndarray, two: np.ndarray) -> float:
    """The largest correlation over shifts of up to SHIFT pixels, over the part both pictures show."""
    inner = one[SHIFT:-SHIFT, SHIFT:-SHIFT]
    best = -1.0
    for dy in range(2 * SHIFT + 1):
        for dx in range(2 * SHIFT + 1):
            other = two[dy : dy + inner.shape[0], dx : dx + inner.shape[1]]
            a, b = inner - inner.mean(), other - other.mean()
            best = max(best, float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum() + 1e-12)))
    return best
