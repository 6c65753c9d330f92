"""Images on disk as the tables detectors learn from."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.artefacts import values_hash
from components.backbones import Backbone, Features, FeatureStore
from components.backbones.store import Images
from components.imaging import load, resize, to_tensor
from components.progress import progress
from components.synthesis import SynthesisSettings, make


@dataclass(frozen=True)
class FileImages:
    """Image files in a fixed order; *hashes* are those of their bytes and make the content's identity."""

    paths: tuple[Path, ...]
    hashes: tuple[str, ...]

    @property
    def key(self) -> str:
        return values_hash(self.hashes)

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, indices: Sequence[int], size: int) -> Tensor:
        """(len(indices), 3, size, size) float32 in [0, 1]."""
        return torch.stack([load(self.paths[i], size) for i in indices])


class MadeImages:
    """*copies* synthetic anomalies on each of *images*, in memory as uint8: number i is a function of (seed, i)."""

    def __init__(self, images: Images, settings: SynthesisSettings, seed: int, copies: int = 1) -> None:
        self.key = values_hash([images.key, settings, seed, copies])
        self.images, self.copies = images, copies
        shape = (copies * len(images), settings.size, settings.size)
        self._pixels, self._masks = np.empty((*shape, 3), np.uint8), np.empty(shape, bool)
        started = time.perf_counter()
        for i in progress(range(shape[0]), "synthetic anomalies to learn from"):
            normal = (images.pixels([i // copies], settings.size)[0] * 255).round().byte().permute(1, 2, 0).numpy()
            strategy = settings.strategies[i % len(settings.strategies)]
            made = make(strategy, normal, _generator(seed, i), settings)
            self._pixels[i], self._masks[i] = made.image, made.mask
        self.seconds = time.perf_counter() - started

    def __len__(self) -> int:
        return len(self._pixels)

    def pixels(self, indices: Sequence[int], size: int) -> Tensor:
        return resize(torch.stack([to_tensor(self._pixels[i]) for i in indices]), size)

    def masks(self, indices: Sequence[int], side: int) -> Tensor:
        """(len(indices), 1, side, side) float32: the largest value within each cell."""
        return F.adaptive_max_pool2d(torch.from_numpy(self._masks[list(indices)]).float()[:, None], side)


def _generator(seed: int, number: int) -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}/learn/{number}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


class PixelTable:
    """Images resized once and kept in memory as uint8, 0.2 MB each at 256 pixels."""

    def __init__(self, images: Images, size: int) -> None:
        self._pixels = torch.empty((len(images), 3, size, size), dtype=torch.uint8)
        for i in range(len(images)):
            self._pixels[i] = (images.pixels([i], size)[0] * 255).round().byte()

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, indices: Sequence[int]) -> Tensor:
        return self._pixels[torch.as_tensor(indices)].float() / 255


@dataclass(frozen=True)
class Repeated:
    """Every row of *table* *copies* times in turn: what made images were before."""

    table: PixelTable
    copies: int

    def __len__(self) -> int:
        return self.copies * len(self.table)

    def take(self, indices: Sequence[int]) -> Tensor:
        return self.table.take([i // self.copies for i in indices])


@dataclass(frozen=True)
class MaskTable:
    """The masks of made images, pooled to *side*."""

    images: MadeImages
    side: int

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Sequence[int]) -> Tensor:
        return self.images.masks(indices, self.side)


@dataclass(frozen=True)
class StoredImages:
    """Images with their features from the store: ``detectors.contract.Images``."""

    images: Images
    store: FeatureStore

    def features(self, backbone: Backbone) -> Features:
        return self.store.features(backbone, self.images)

    def pixels(self, size: int) -> PixelTable:
        return PixelTable(self.images, size)


@dataclass(frozen=True)
class MadeAnomalies(StoredImages):
    """Synthetic anomalies with their masks: ``detectors.contract.Anomalies``."""

    images: MadeImages

    def clean(self, size: int) -> Repeated:
        return Repeated(PixelTable(self.images.images, size), self.images.copies)

    def masks(self, side: int) -> MaskTable:
        return MaskTable(self.images, side)


@dataclass(frozen=True)
class FitImages(StoredImages):
    """The fit normals: ``detectors.contract.TrainingData``."""

    seed: int = 0
    synthesis: SynthesisSettings = SynthesisSettings()
    spent: dict[str, float] = field(default_factory=dict, compare=False)  # seconds by what they went to

    def anomalies(self, strategies: tuple[str, ...], size: int, copies: int = 1) -> MadeAnomalies:
        settings = replace(self.synthesis, strategies=strategies, size=size)
        made = MadeImages(self.images, settings, self.seed, copies)
        self.spent["synthesis"] = self.spent.get("synthesis", 0.0) + made.seconds
        return MadeAnomalies(made, self.store)


@dataclass(frozen=True)
class CheckImages:
    """What epochs are chosen by: calibrate normals and synthetic anomalies. Test images never come here."""

    data: StoredImages
    anomalous: np.ndarray  # (N,) bool
