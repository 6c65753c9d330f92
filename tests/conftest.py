"""Shared pictures and the environment of all tests."""

import numpy as np
import pytest
from PIL import Image

import components  # noqa: F401  (the environment switches, before anything else is imported)


def tile(seed: int, side: int = 96) -> np.ndarray:
    """A grey machined surface: stripes, a soft shade and noise; uint8 (side, side, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    grey = 120 + 20 * np.sin(40 * x + rng.uniform(0, 6)) + 15 * y + rng.normal(0, 4, (side, side))
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="session")
def tiles() -> list[np.ndarray]:
    return [tile(seed) for seed in range(24)]


@pytest.fixture(scope="session")
def product(tmp_path_factory):
    """A folder in MVTec layout: 40 good images for training, 8 good and 8 scratched ones with masks for testing."""
    root = tmp_path_factory.mktemp("product")
    for i in range(40):
        _save(root / "train/good" / f"{i:03d}.png", tile(i))
    for i in range(8):
        _save(root / "test/good" / f"{i:03d}.png", tile(100 + i))
        scratched, mask = tile(200 + i), np.zeros((96, 96), np.uint8)
        mask[30:50, 20 + i : 44 + i] = 255
        scratched[mask > 0] = 250
        _save(root / "test/scratch" / f"{i:03d}.png", scratched)
        _save(root / "ground_truth/scratch" / f"{i:03d}_mask.png", mask)
    return root


def _save(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
