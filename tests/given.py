"""What tests of detectors learn from: tables that are their names, tables of pixels, and one plain training."""

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image

from components.backbones import features
from components.backbones.features import FeatureStore
from components.decision.conformal import decide_one
from components.pictures.decoding import Decoding, decode
from components.pictures.roi import written
from components.synthesis.settings import SynthesisSettings
from components.synthesis.synthesise import synthesise
from components.training.checkpoint import Checkpoint
from components.training.loop import Loop
from components.training.model import score_files
from components.training.settings import TrainSettings
from components.training.train import train
from tests.conftest import tile


def in_torch(backbone, _):
    """In place of ``components.backbones.features.extractor``: no graph."""
    device = next(backbone.parameters()).device
    return torch.inference_mode()(lambda pixels: [tap.cpu().numpy() for tap in backbone(pixels.to(device))])


class TorchStore(FeatureStore):
    """A store that exports no graph of the backbone."""

    def _compute(self, *asked):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(features, "extractor", in_torch)
            super()._compute(*asked)


def parted_tiles(root: Path, fit: int, calibrate: int) -> Path:
    """*root* with so many tiles of each side, their split, and a scar on each calibrate normal."""
    names = [f"{number:02d}.png" for number in range(fit + calibrate)]
    for number, name in enumerate(names):
        Image.fromarray(tile(number)).save(root / name)
    sides = ["fit"] * fit + ["calibrate"] * calibrate
    table = pd.DataFrame({"image_id": names, "sha256": names, "split": sides, "label": "normal", "group": "g"})
    (root / "split").mkdir()
    table.to_parquet(root / "split/split.parquet")
    synthesise(root / "split", root, root / "synthetic", SynthesisSettings(strategies=("scar",)), 0)
    return root


def trained_tiny(data: Path, out: Path, detector: str, moves: str | tuple[str, ...], seed: int = 0) -> Path:
    """The model of a short training on ``parted_tiles``."""
    settings = replace(TrainSettings("tiny"), moves=moves)
    return train(detector, data / "split", data / "synthetic", data, out, settings, seed)


def decisions(table, scores) -> list[str]:
    """What is decided of each of *scores*, one picture at a time as on the line."""
    return [decide_one(table, float(score)).decision for score in scores]


class Named:
    """Training data whose tables are their names; ``asked`` keeps what anomalies were asked for."""

    def __init__(self):
        self.asked = []

    def pixels(self, size):
        return [f"pixels {size}"]

    def clean(self, size):
        return [f"clean {size}"]

    def before(self, backbone):
        return [f"features of clean ones {backbone.settings.size}"]

    def masks(self, side):
        return [f"masks {side}"]

    def features(self, backbone):
        return [f"features {backbone.settings.size}"]

    def anomalies(self, *asked):
        self.asked.append(asked)
        return self


def phase(detector, name: str, data=None):
    """The phase *name* of *detector*, the first of that name; its own data are of no matter where none are given."""
    return next(found for found in detector.phases(data or Named()) if found.name == name)


def passed(detector, name: str, *batches, data=None) -> None:
    """A closed-form phase of *detector* over *batches*, as the loop goes through it."""
    once = phase(detector, name, data)
    for batch in batches:
        once.update(batch)
    once.finish()


class Pixels:
    """Training data with *images* (N, 3, 64, 64) and no synthetic anomalies."""

    def __init__(self, images):
        self.images = images

    def pixels(self, size):
        assert size == 64
        return self

    def __len__(self):
        return len(self.images)

    def take(self, indices):
        return self.images[torch.as_tensor(list(indices))]


def stripes(count: int) -> torch.Tensor:
    """Shifted stripes with noise, (count, 3, 64, 64)."""
    torch.manual_seed(1)
    x = torch.linspace(0, 40, 64)
    rows = [0.5 + 0.2 * torch.sin(x + phase) for phase in torch.rand(count) * 6]
    return torch.stack([row.expand(3, 64, 64) for row in rows]) + 0.02 * torch.randn(count, 3, 64, 64)


def learned(detector, data, folder):
    """*detector* trained on *data* by the one loop, without a choice of epochs, in eval mode."""
    Loop(detector, lambda _: 0.5, Checkpoint(folder, "x"), 0, 1e9, Fabric(accelerator="cpu", devices=1)).run(data)
    return detector.eval()


def assert_blind_outside(detector, paths, folder):
    """To the last bit: score and map of pictures (300, 210) that are alike in a region alone."""
    region, others = np.zeros((300, 210), bool), [folder / path.name for path in paths]
    region[60:240, 40:200] = True
    rules = Decoding(roi=written(region, (210, 300)))
    for path, other in zip(paths, others, strict=True):
        pixels = decode(path)
        Image.fromarray(np.where(region[..., None], pixels, 255 - pixels[::-1])).save(other)
    ours, theirs = (next(score_files(detector, side, rules=rules)) for side in (paths, others))
    np.testing.assert_array_equal(ours[0], theirs[0])
    np.testing.assert_array_equal(ours[1], theirs[1])
    whole = [next(score_files(detector, side))[1] for side in (paths, others)]
    assert (whole[0] != whole[1]).any()  # without a region the detector sees it


class OfOneSize:
    """A backbone's graph as ``FastBackbone`` has it, of all its taps and for pixels of its own size alone."""

    def __init__(self, backbone, cache):  # noqa: ARG002
        self.network = copy.copy(backbone)

    def __call__(self, images):
        return [tap.numpy() for tap in self.network(images)]
