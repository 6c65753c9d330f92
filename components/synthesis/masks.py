"""Shapes of synthetic anomalies: boolean masks (H, W)."""

import numpy as np
from scipy.ndimage import rotate


def perlin(shape: tuple[int, int], rng: np.random.Generator, threshold: float = 0.5, largest: int = 5) -> np.ndarray:
    """Thresholded, rotated Perlin noise (the recipe of DRAEM, Zavrtanik et al., ICCV 2021); may be empty."""
    side = 1 << int(np.ceil(np.log2(max(shape))))
    noise = perlin_noise(side, tuple(2 ** rng.integers(0, largest + 1, 2)), rng)
    turned = rotate(noise, rng.uniform(-90, 90), reshape=False, order=1, mode="reflect")
    return turned[: shape[0], : shape[1]] > threshold


def perlin_noise(side: int, cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Gradient noise with quintic fade, (side, side), about [-1, 1]; *cells* per axis must divide *side*."""
    angles = rng.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    gradients = np.stack([np.cos(angles), np.sin(angles)], -1)
    y, x = (np.arange(side) * c / side for c in cells)
    iy, ix = y.astype(int), x.astype(int)
    fy, fx = (y - iy)[:, None], (x - ix)[None, :]

    def corner(dy: int, dx: int) -> np.ndarray:
        g = gradients[np.ix_(iy + dy, ix + dx)]
        return g[..., 0] * (fy - dy) + g[..., 1] * (fx - dx)

    ty, tx = _fade(fy), _fade(fx)
    top = corner(0, 0) * (1 - tx) + corner(0, 1) * tx
    bottom = corner(1, 0) * (1 - tx) + corner(1, 1) * tx
    return np.sqrt(2) * (top * (1 - ty) + bottom * ty)


def _fade(t: np.ndarray) -> np.ndarray:
    return t**3 * (t * (6 * t - 15) + 10)


def patch(shape: tuple[int, int], area: float, aspect: float, angle: float, rng: np.random.Generator) -> np.ndarray:
    """A rectangle of *area* (share of the image) and *aspect* (long side over short), turned by *angle* degrees."""
    h, w = shape
    long, short = np.sqrt(area * h * w * aspect), np.sqrt(area * h * w / aspect)
    cy, cx = rng.uniform(0.15 * h, 0.85 * h), rng.uniform(0.15 * w, 0.85 * w)
    y, x = np.mgrid[:h, :w]
    turn = np.deg2rad(angle)
    u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
    v = -(x - cx) * np.sin(turn) + (y - cy) * np.cos(turn)
    return (np.abs(u) <= max(0.5, long / 2)) & (np.abs(v) <= max(0.5, short / 2))
