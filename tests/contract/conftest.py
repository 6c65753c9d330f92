"""Every detector, trained once on the tiles of ``product`` for all tests of the contract."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from components.backbones.features import FeatureStore
from components.detectors.catalogue import CATALOGUE, create, settings_for
from components.pictures.decoding import decode
from components.pictures.imaging import to_tensor
from components.synthesis.blending import unchanged
from components.synthesis.placing import on_picture
from components.synthesis.synthesise import write_png
from components.training.checkpoint import Checkpoint
from components.training.data import FileImages, FitImages
from components.training.loop import Loop
from tests.conftest import tile

NAMES = sorted(CATALOGUE)
# What is tested whole: every detector, and settings under which one takes other inputs.
CASES = {name: (name, {}) for name in NAMES} | {
    f"sgsf by {kind}": ("sgsf", {"guidance": kind, "backbone.taps": [4]}) for kind in ("contrast", "self")
}


@pytest.fixture(scope="session")
def images(product) -> FileImages:
    paths = sorted((product / "train/good").glob("*.png"))[:20]
    return FileImages(tuple(paths), tuple(p.name for p in paths))


def looped(
    case: str, images: FileImages, store: FeatureStore, folder: Path, kind=Loop, seed: int = 0, fabric=None, **changes
):
    """The loop that has trained a detector, from the checkpoint in *folder* if there is one, else from *seed*."""
    torch.manual_seed(seed)
    name, overrides = CASES[case]
    detector = create(name, dataclasses.replace(settings_for(name, "tiny", overrides), **changes))
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    fabric.to_device(detector)
    loop = kind(detector, lambda _: 0.5, Checkpoint(folder, "x"), 0, 1e9, fabric)
    loop.run(FitImages(images, store))
    return loop


def trained(*given, **changes):
    return looped(*given, **changes).detector


@pytest.fixture(scope="session", params=CASES)
def case(request) -> str:
    return request.param


@pytest.fixture(scope="session")
def fitted(case, images, store, tmp_path_factory):
    return trained(case, images, store, tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def batch(tiles) -> torch.Tensor:
    return torch.stack([to_tensor(t) for t in tiles[20:]])


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> tuple[list[Path], list[Path]]:
    """Sixteen pictures, and what ``synthesise`` writes of them by a strategy that changes nothing."""
    folder = tmp_path_factory.mktemp("pairs")
    originals, copies = ([folder / f"{i}{end}" for i in range(16)] for end in (".png", "-copy.png"))
    for i, (original, copy_) in enumerate(zip(originals, copies, strict=True)):
        Image.fromarray(tile(i, 300)[:, :210]).save(original)
        same = on_picture(decode(original), lambda square: unchanged(square, 1.0), 1024, np.random.default_rng(i))
        write_png(same.image, copy_)
    return originals, copies
