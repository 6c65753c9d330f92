"""Shapes of synthetic anomalies: boolean masks (H, W)."""

import numpy as np
from scipy.ndimage import gaussian_filter, rotate


def perlin(shape: tuple[int, int], rng: np.random.Generator, threshold: float = 0.5, largest: int = 5) -> np.ndarray:
    """Thresholded, rotated Perlin noise (the recipe of DRAEM, Zavrtanik et al., ICCV 2021); may be empty."""
    return turned_noise(shape, rng, largest) > threshold


def turned_noise(shape: tuple[int, int], rng: np.random.Generator, largest: int = 5) -> np.ndarray:
    """Perlin noise (H, W) of 1 to 2 ** *largest* cells per axis, rotated at random."""
    side = 1 << int(np.ceil(np.log2(max(shape))))
    noise = perlin_noise(side, tuple(2 ** rng.integers(0, largest + 1, 2)), rng)
    turned = rotate(noise, rng.uniform(-90, 90), reshape=False, order=1, mode="reflect")
    return turned[: shape[0], : shape[1]]


def perlin_noise(side: int, cells: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Gradient noise with quintic fade, (side, side), about [-1, 1]; *cells* per axis must divide *side*."""
    angles = rng.uniform(0, 2 * np.pi, (cells[0] + 1, cells[1] + 1))
    gradients = np.stack([np.cos(angles), np.sin(angles)], -1)
    y, x = (np.arange(side) * c / side for c in cells)
    iy, ix = y.astype(int), x.astype(int)
    fy, fx = (y - iy)[:, None], (x - ix)[None, :]

    def corner(dy: int, dx: int) -> np.ndarray:
        along, across = (np.take(np.take(gradients[..., k], iy + dy, 0), ix + dx, 1) for k in (0, 1))
        along *= fy - dy
        across *= fx - dx
        along += across
        return along

    ty, tx = _fade(fy), _fade(fx)
    top, bottom = (_mixed(corner(dy, 0), corner(dy, 1), tx) for dy in (0, 1))
    noise = _mixed(top, bottom, ty)
    noise *= np.sqrt(2)
    return noise


def _mixed(first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    """first (1 - share) + second share, into the memory of both."""
    first *= 1 - share
    second *= share
    first += second
    return first


def _fade(t: np.ndarray) -> np.ndarray:
    return t**3 * (t * (6 * t - 15) + 10)


def confetti(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Blurred turned rectangles, (H, W, 3) float: bright ones in a colour, dark ones; zero where there is none.

    Densities and sizes are of the published recipe for 224 to 256 pixels, amplitudes in 0..255; one blob at least.
    """
    noise = np.zeros((*shape, 3), np.float32)
    pixels = shape[0] * shape[1]
    bright, dark = rng.poisson(1.8e-5 * pixels), rng.poisson(1.2e-5 * pixels)
    bright = max(bright, 1 - dark)
    for number in range(bright + dark):
        sides = rng.uniform(8, 54, 2) * max(shape) / 256
        area, aspect = sides.prod() / pixels, sides.max() / sides.min()
        blob = patch(shape, area, aspect, rng.uniform(-45, 45), rng)
        noise[blob] += 255 + rng.uniform(-256, 0, 3) if number < bright else np.full(3, -255.0)
    sigma = 5 * max(shape) / 256
    return gaussian_filter(noise, (sigma, sigma, 0), truncate=2.4)  # 2.4: the recipe's kernel of 25 pixels


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
