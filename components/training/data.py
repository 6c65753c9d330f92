"""Images on disk as the tables detectors learn from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.artefacts import values_hash
from components.backbones import Backbone, FeatureStore, FeatureTable
from components.imaging import load


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


class PixelTable:
    """Images resized once and kept in memory as uint8, 0.2 MB each at 256 pixels."""

    def __init__(self, images: FileImages, size: int) -> None:
        self._pixels = torch.empty((len(images), 3, size, size), dtype=torch.uint8)
        for i in range(len(images)):
            self._pixels[i] = (images.pixels([i], size)[0] * 255).round().byte()

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, indices: Sequence[int]) -> Tensor:
        return self._pixels[torch.as_tensor(indices)].float() / 255


@dataclass(frozen=True)
class FitImages:
    """The fit normals as ``detectors.contract.TrainingData``."""

    images: FileImages
    store: FeatureStore

    def features(self, backbone: Backbone) -> FeatureTable:
        return self.store.features(backbone, self.images)

    def pixels(self, size: int) -> PixelTable:
        return PixelTable(self.images, size)


@dataclass(frozen=True)
class CheckImages:
    """What epochs are chosen by: calibrate normals and synthetic anomalies. Test images never come here."""

    images: FileImages
    anomalous: np.ndarray  # (N,) bool
    store: FeatureStore
