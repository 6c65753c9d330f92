"""Every detector, trained once on the tiles of ``product`` for all tests of the contract."""

import dataclasses
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from components.backbones.features import FeatureStore
from components.detectors.catalogue import CATALOGUE, create, settings_for
from components.pictures.imaging import to_tensor
from components.training.checkpoint import Checkpoint
from components.training.data import FileImages, FitImages
from components.training.loop import Loop

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
