"""Graded anomalies: four kinds whose difficulty is one number, drawn in pixels of the picture as it was taken.

No publication's recipe. They are for checking only and no detector may learn from them, so that none is chosen by what
it has learned to find. ``settings.strength`` is the difficulty, 1 easiest; ``training.probe`` chooses it for a data
set. Sizes are of original pixels: a defect of 8 pixels stays one of 8 pixels, whatever size a detector looks at.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter, map_coordinates

from components.synthesis import masks
from components.synthesis.blending import Synthetic, dissolve, made, strength_of, unchanged
from components.synthesis.channels import smoothed
from components.synthesis.foreground import foreground
from components.synthesis.once import once
from components.synthesis.settings import SynthesisSettings
from components.synthesis.shade import finish, wide_area

SMALL = (8.0, 45.0)  # pixels: longest extent of a small defect, drawn evenly by its logarithm
FAINT_AREA = (0.03, 0.2)  # share of the product
TONE = 160.0  # grey levels, up or down, of a small defect of strength 1
FAINT_TONE, FAINT_ROUGH = 64.0, 1.6  # of a faint one: grey levels, and the logarithm of its factor on fine detail
RADIUS = (12.0, 0.12)  # of a structure: pixels at least, share of the square at most
BEND = 0.6  # of the radius: how far a structure is moved at strength 1
LEAST = 0.08  # a soft edge weighs no less where anything changes
FINE = 3.0  # sigma in pixels below which detail is fine

Change = Callable[[np.ndarray, np.random.Generator, float], np.ndarray]


def graded_small(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A spot, a chip or a scratch of 8 to 45 pixels in another tone."""
    strength, (low, high) = strength_of(rng, settings), SMALL
    extent = min(float(np.exp(rng.uniform(np.log(low), np.log(high)))), min(image.shape[:2]) / 4)
    outline = _outline(int(np.ceil(extent)) + 4, extent, rng)
    box = _box(point_of(image, rng), outline.shape, image.shape)
    result = image.copy()
    weight = _floored(gaussian_filter(outline.astype(np.float32), 0.7))
    result[box] = dissolve(image[box], image[box] + _tone(rng) * strength * TONE, weight)
    return made(image, result, strength)


def graded_faint(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A cloud of slightly other brightness or slightly other roughness, without an edge."""
    strength, share = strength_of(rng, settings), rng.uniform(*FAINT_AREA)
    weight = once(_cloud, image, rng, share)
    change = _brighter if rng.random() < 0.5 else _rougher
    return made(image, dissolve(image, change(image, rng, strength), weight), strength)


def _cloud(image: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """float32 (H, W): how much of a change is seen where, on *share* of the product."""
    noise, product = masks.turned_noise(image.shape[:2], rng, 2), foreground(image)
    area = product & (noise > np.quantile(noise[product], 1 - share))
    return _floored(gaussian_filter(area.astype(np.float32), 0.02 * min(area.shape), truncate=2.0))


def graded_wide(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """The areas of ``shade``, up to half of the picture, at any strength."""
    strength, weight = strength_of(rng, settings), once(_wide, image, rng)
    if not weight.size:
        return unchanged(image, strength)
    return made(image, dissolve(image, finish(image, rng), strength * weight), strength)


def _wide(image: np.ndarray, rng: np.random.Generator, _: float) -> np.ndarray:
    """float32 (H, W), as ``_cloud``; without a pixel where nothing of the area lies on the product."""
    area = wide_area(image, rng)
    if not area.any():
        return np.zeros((0, 0), np.float32)
    return _floored(gaussian_filter(area.astype(np.float32), 0.01 * min(area.shape), truncate=2.0))


def graded_structure(image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """A part of the product bent, or another part of it in its place: every tone is the product's own."""
    strength, (least, share) = strength_of(rng, settings), RADIUS
    most = max(share * min(image.shape[:2]), least)
    radius = min(float(np.exp(rng.uniform(np.log(least), np.log(most)))), min(image.shape[:2]) / 4)
    side = int(2 * radius) + 1
    box = _box(point_of(image, rng), (side, side), image.shape)
    change = _bent if rng.random() < 0.5 else _replaced
    result = image.copy()
    result[box] = change(image, box, radius, strength, rng)
    return made(image, result, strength)


def _bent(
    image: np.ndarray, box: tuple[slice, slice], radius: float, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """The box with its middle moved by up to BEND of the radius, its rim in place."""
    angle, bell = rng.uniform(0, 2 * np.pi), _bell(box, radius)
    move = strength * BEND * radius * bell
    y, x = np.mgrid[box].astype(np.float64)
    at = [y + move * np.sin(angle), x + move * np.cos(angle)]
    moved = [map_coordinates(image[..., c], at, order=1, mode="nearest") for c in range(3)]
    return np.where((bell > LEAST)[..., None], np.rint(np.stack(moved, -1)), image[box]).astype(np.uint8)


def _replaced(
    image: np.ndarray, box: tuple[slice, slice], radius: float, strength: float, rng: np.random.Generator
) -> np.ndarray:
    """The box with another place of the picture mixed in, as strongly as *strength*, with a soft rim."""
    shape = (box[0].stop - box[0].start, box[1].stop - box[1].start)
    other = image[_box(point_of(image, rng), shape, image.shape)]
    return dissolve(image[box], other.astype(np.float32), strength * _floored(np.minimum(1, 2 * _bell(box, radius))))


def _bell(box: tuple[slice, slice], radius: float) -> np.ndarray:
    """float32 over the box: 1 in its middle, falling to 0 at the radius."""
    y, x = (np.arange(s.start, s.stop) - (s.start + s.stop - 1) / 2 for s in box)
    away = np.hypot(y[:, None], x[None]) / radius
    return np.where(away < 1, np.cos(np.pi / 2 * np.minimum(away, 1)) ** 2, 0).astype(np.float32)


def _brighter(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    return image + _tone(rng) * strength * FAINT_TONE


def _rougher(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    coarse = smoothed(image, FINE)
    return coarse + np.exp(_tone(rng) * strength * FAINT_ROUGH) * (image - coarse)


def _tone(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.7, 1.0) * rng.choice([-1, 1]))


def _floored(weight: np.ndarray) -> np.ndarray:
    """Without the outer rim that nobody would see, lest the mask be wider than the anomaly."""
    return np.where(weight > LEAST, weight, 0).astype(np.float32)


def _outline(side: int, extent: float, rng: np.random.Generator) -> np.ndarray:
    """bool (side, side): an ellipse, a chip of 5 to 9 corners or a scratch, *extent* pixels long."""
    canvas, middle, turn = Image.new("1", (side, side)), side / 2, rng.uniform(0, np.pi)
    kind = rng.integers(3)
    if kind == 2:
        end = extent / 2 * np.array([np.cos(turn), np.sin(turn)])
        points = [tuple(middle - end), tuple(middle + end)]
        ImageDraw.Draw(canvas).line(points, fill=1, width=max(1, round(extent * rng.uniform(0.06, 0.2))))
        return np.asarray(canvas)
    corners = 24 if kind == 0 else int(rng.integers(5, 10))
    radii = extent / 2 * (1.0 if kind == 0 else rng.uniform(0.4, 1, corners))
    flat = radii * np.exp(2j * np.pi * np.arange(corners) / corners)
    outline = (flat.real + 1j * rng.uniform(0.4, 1) * flat.imag) * np.exp(1j * turn)
    ImageDraw.Draw(canvas).polygon([(middle + p.real, middle + p.imag) for p in outline], fill=1)
    return np.asarray(canvas)


def point_of(image: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """A random point of the product, or of the picture where no product stands out."""
    product = foreground(image)
    until = np.cumsum(np.count_nonzero(product, axis=1))  # by row: a list of all points would take ten times the memory
    chosen = int(rng.integers(until[-1]))
    row = int(np.searchsorted(until, chosen, side="right"))
    before = int(until[row - 1]) if row else 0
    return row, int(np.flatnonzero(product[row])[chosen - before])


def _box(at: tuple[int, int], shape: tuple[int, ...], whole: tuple[int, ...]) -> tuple[slice, slice]:
    """The box of *shape* around a point, moved inside the picture."""
    starts = [int(np.clip(p - s // 2, 0, w - s)) for p, s, w in zip(at, shape[:2], whole[:2], strict=True)]
    return slice(starts[0], starts[0] + shape[0]), slice(starts[1], starts[1] + shape[1])
