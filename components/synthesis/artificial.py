"""Artificial defects after FMR-Net (Yao, Yu, Wang, IEEE TASE 20(4), 2023): strokes, spots and patches with soft edges.

The publication's recipe is not known: reconstructed. Lengths are pixels of a 256 x 256 image and grow with the image.
"""

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import find_objects, gaussian_filter, label

from components.synthesis import masks, sources
from components.synthesis.blending import Synthetic, dissolve, folder_of, made
from components.synthesis.settings import SynthesisSettings

COUNT = (1, 5)  # defects per image
WIDTH, LENGTH = (1, 8), (20, 150)  # of a stroke
SPOT = (3, 24)  # half of a spot's longest extent
SOFTNESS = (0.0, 2.0)  # sigma of the edge
OPACITY = (0.4, 1.0)
TONE = (20, 120)  # grey levels, up or down

Shapes = Callable[[int, np.random.Generator], Iterator[np.ndarray]]


def line_defect(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """Bent strokes."""
    return _defects(image, strokes, rng, settings)


def spot_defect(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """Ellipses and irregular polygons."""
    return _defects(image, spots, rng, settings)


def texture_defect(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """Single patches of a Perlin mask."""
    return _defects(image, patches, rng, settings)


def _defects(image: np.ndarray, shapes: Shapes, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """Each shape gets a filling and an edge of its own; the opacity is the image's."""
    strength, result = float(rng.uniform(*OPACITY)), image
    for shape in shapes(image.shape[0], rng):
        result = _filled(result, image, shape, strength, rng, settings)
    return made(image, result, strength)


def _filled(
    result: np.ndarray,
    image: np.ndarray,
    shape: np.ndarray,
    strength: float,
    rng: np.random.Generator,
    settings: SynthesisSettings,
) -> np.ndarray:
    """*result* with one defect; works within the shape's box, which the soft edge widens by two sigma."""
    sigma = rng.uniform(*SOFTNESS) * image.shape[0] / 256
    box = _box(shape, int(np.ceil(2 * sigma)))
    if box is None:
        return result
    weight = strength * gaussian_filter(shape[box].astype(np.float32), sigma, truncate=2.0)
    result = result.copy()
    result[box] = dissolve(result[box], _filling(image, box, rng, settings), weight)
    return result


def _box(shape: np.ndarray, margin: int) -> tuple[slice, slice] | None:
    found = find_objects(shape.astype(np.uint8))
    if not found:
        return None
    rows, columns = found[0]
    return (
        slice(max(0, rows.start - margin), rows.stop + margin),
        slice(max(0, columns.start - margin), columns.stop + margin),
    )


def _filling(
    image: np.ndarray, box: tuple[slice, slice], rng: np.random.Generator, settings: SynthesisSettings
) -> np.ndarray:
    """float32 (h, w, 3) for the box: another tone, noise, the image's own texture moved, or a foreign texture."""
    here = image[box].astype(np.float32)
    kind = rng.integers(4)
    if kind == 0:
        return here + rng.uniform(*TONE) * rng.choice([-1, 1])
    if kind == 1:
        return here + rng.normal(0, rng.uniform(*TONE), (*here.shape[:2], 1))
    if kind == 2:
        return sources.moved(image, rng)[box].astype(np.float32)
    side = max(32, *here.shape[:2])
    return sources.texture(side, folder_of(settings), rng)[: here.shape[0], : here.shape[1]].astype(np.float32)


def strokes(size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Four straight pieces each, whose direction wanders."""
    for _ in range(_count(rng)):
        length, width = rng.uniform(*LENGTH) * size / 256, rng.uniform(*WIDTH) * size / 256
        turns = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.3, 4))
        steps = length / 4 * np.stack([np.cos(turns), np.sin(turns)], 1)
        path = np.cumsum(np.concatenate([rng.uniform(0.1, 0.9, (1, 2)) * size, steps]), 0)
        canvas = Image.new("1", (size, size))
        ImageDraw.Draw(canvas).line(_points(path), fill=1, width=max(1, round(width)), joint="curve")
        yield np.asarray(canvas)


def spots(size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Closed outlines around a centre: radii all on an ellipse, or drawn at random for a polygon of 5 to 9 corners."""
    for _ in range(_count(rng)):
        long, flat, turn = rng.uniform(*SPOT) * size / 256, rng.uniform(0.3, 1), rng.uniform(0, np.pi)
        corners = 24 if rng.random() < 0.5 else int(rng.integers(5, 10))
        angles = np.arange(corners) * 2 * np.pi / corners
        radii = long * (np.ones(corners) if corners == 24 else rng.uniform(0.4, 1, corners))
        flattened = radii * np.exp(1j * angles)
        outline = (flattened.real + 1j * flat * flattened.imag) * np.exp(1j * turn)
        path = np.stack([outline.real, outline.imag], 1) + rng.uniform(0.1, 0.9, 2) * size
        canvas = Image.new("1", (size, size))
        ImageDraw.Draw(canvas).polygon(_points(path), fill=1)
        yield np.asarray(canvas)


def patches(size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Some of the connected parts of a Perlin mask."""
    parts, number = label(masks.perlin((size, size), rng))
    for part in rng.permutation(number)[: _count(rng)]:
        yield parts == part + 1


def _count(rng: np.random.Generator) -> int:
    return int(rng.integers(COUNT[0], COUNT[1] + 1))


def _points(path: np.ndarray) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in path]
