"""What fills an anomaly: packaged textures, procedural ones, a folder of images, or the very image rearranged."""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from components.core.errors import DataError
from components.synthesis.masks import perlin_noise


@cache
def packaged() -> tuple[np.ndarray, ...]:
    """Photographs and textures that ship with scikit-image and scikit-learn, uint8 RGB."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    grey = [data.brick(), data.grass(), data.gravel()]
    colour = [load_sample_image("china.jpg"), load_sample_image("flower.jpg")]
    return (*(np.repeat(g[..., None], 3, 2) for g in grey), *(np.asarray(c) for c in colour))


@cache
def photographs() -> tuple[np.ndarray, ...]:
    """Photographs of people, animals, things and places in the same two packages, uint8 RGB."""
    from skimage import data

    colour = [data.astronaut(), data.chelsea(), data.coffee(), data.rocket()]
    return (*(np.asarray(c) for c in colour), *packaged()[-2:])


def photograph(size: int, folder: Path | None, rng: np.random.Generator) -> np.ndarray:
    """A whole photograph as uint8 (size, size, 3): from *folder* if given, else packaged."""
    image = _from_folder(folder, rng) if folder is not None else photographs()[rng.integers(len(photographs()))]
    return np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))


def texture(size: int, folder: Path | None, rng: np.random.Generator) -> np.ndarray:
    """A (size, size, 3) uint8 texture: from *folder* (such as DTD) if given, else packaged or procedural; augmented."""
    if folder is not None:
        image = _from_folder(folder, rng)
    elif rng.random() < 0.3:
        return procedural(size, rng)
    else:
        image = packaged()[rng.integers(len(packaged()))]
    return np.asarray(augment(Image.fromarray(_crop(image, size, rng)), rng))


def procedural(size: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise mixed between two random colours."""
    side = 1 << int(np.ceil(np.log2(size)))
    cells = int(2 ** rng.integers(2, 6))
    level = (perlin_noise(side, (cells, cells), rng)[:size, :size, None] + 1) / 2
    dark, light = rng.uniform(0, 255, (2, 3))
    return (dark + (light - dark) * level).clip(0, 255).astype(np.uint8)


def rearranged(image: np.ndarray, rng: np.random.Generator, grid: int = 8) -> np.ndarray:
    """The image itself, augmented and cut into grid x grid tiles in random order."""
    size = image.shape[0] // grid * grid
    mixed = np.asarray(augment(Image.fromarray(image), rng))[:size, :size]
    tile = size // grid
    tiles = mixed.reshape(grid, tile, grid, tile, 3).swapaxes(1, 2).reshape(-1, tile, tile, 3)
    mixed = rng.permutation(tiles).reshape(grid, grid, tile, tile, 3).swapaxes(1, 2).reshape(size, size, 3)
    return np.pad(mixed, ((0, image.shape[0] - size), (0, image.shape[1] - size), (0, 0)), mode="edge")


def moved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image rolled by at least a quarter of its side and turned at random."""
    side = image.shape[0]
    shift = tuple(int(v) for v in rng.integers(side // 4, 3 * side // 4, 2))
    rolled = np.roll(image, shift, (0, 1))
    return np.asarray(Image.fromarray(rolled).rotate(90)) if rng.random() < 0.5 else rolled


def augment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Three of eight changes of tone and orientation, without replacement."""
    gamma = rng.uniform(0.5, 2.0)
    changes = [
        lambda i: i.point([int(255 * (v / 255) ** gamma) for v in range(256)] * 3),
        lambda i: ImageEnhance.Brightness(i).enhance(rng.uniform(0.8, 1.2)),
        lambda i: ImageEnhance.Sharpness(i).enhance(rng.uniform(0, 3)),
        lambda i: ImageOps.solarize(i, int(rng.integers(32, 129))),
        lambda i: ImageOps.posterize(i, int(rng.integers(4, 8))),
        ImageOps.invert,
        ImageOps.autocontrast,
        lambda i: i.rotate(rng.uniform(-45, 45), Image.Resampling.BILINEAR),
    ]
    for index in rng.choice(len(changes), 3, replace=False):
        image = changes[index](image)
    return image


def _crop(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    if min(image.shape[:2]) < size:
        return np.asarray(Image.fromarray(image).resize((size, size)))
    y, x = (int(rng.integers(0, extent - size + 1)) for extent in image.shape[:2])
    return image[y : y + size, x : x + size]


def _from_folder(folder: Path, rng: np.random.Generator) -> np.ndarray:
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png"})
    if not paths:
        raise DataError(f"{folder}: holds no texture images (.jpg, .png); correct synthesis.textures")
    with Image.open(paths[rng.integers(len(paths))]) as image:
        return np.asarray(image.convert("RGB"))
