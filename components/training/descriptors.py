"""What pictures look like to a detector, in numbers; those of good pictures set the axes of its graph's embedding."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.backbones.batches import at_once
from components.backbones.extractor import Backbone
from components.backbones.features import FeatureStore, ImageSource
from components.core.progress import progress
from components.detectors.contract import Chosen, Detector
from components.pictures.decoding import Decoding
from components.pictures.imaging import load_batch
from components.training.data import FileImages, StoredImages

FILE = "descriptors.npy"
PICTURES = 256  # good pictures that are described at the most, spread evenly
GRID = 8  # side of the pooled picture that describes images to a detector without a backbone
DRAWN = 16  # pictures at a time
T = TypeVar("T")


def descriptor(inputs: Any) -> Tensor:
    """Means of all features among a detector's inputs (B, D); the pooled picture where it has none."""
    # Of a clip the frame that is scored says what the camera sees.
    maps = [found[:, -1] if found.ndim == 5 else found for found in tensors(inputs)]
    features = [m.mean((2, 3)) for m in maps if m.shape[1] > 3]
    return torch.cat(features, 1) if features else F.adaptive_avg_pool2d(maps[0], GRID).flatten(1)


def tensors(inputs: Any) -> Iterator[Tensor]:
    """All tensors among a detector's inputs, however they are nested."""
    if isinstance(inputs, Tensor):
        yield inputs
    else:
        for part in inputs:
            yield from tensors(part)


def evenly(names: Sequence[T], count: int) -> list[T]:
    """At most *count* of *names*, spread evenly."""
    take = min(count, len(names))
    return [names[i * len(names) // take] for i in range(take)]


@dataclass(frozen=True)
class Sample(StoredImages):
    """Some good pictures, ``images``, whose features are *rows* of those that a training has read of all of them."""

    whole: StoredImages
    rows: Sequence[int]

    def features(self, backbone: Backbone) -> Chosen:
        return Chosen(self.whole.features(backbone), self.rows)


def sample(normal: FileImages, learned: ImageSource, store: FeatureStore) -> Sample:
    """Of *normal*, whose pieces are the first rows of what was *learned*."""
    chosen = evenly(range(len(normal.paths)), PICTURES)
    rows = [row for row, piece in enumerate(normal.pieces) if piece.picture in set(chosen)]
    files = FileImages(tuple(normal.paths[i] for i in chosen), tuple(normal.hashes[i] for i in chosen), normal.rules)
    return Sample(files, store, StoredImages(learned, store), rows)


@torch.inference_mode()
def described(detector: Detector, images: Sample) -> np.ndarray:
    """Descriptors (N, D) of each piece of *images*, of what a training has decoded or computed already."""
    table = detector.inputs(images)
    starts = range(0, len(table), DRAWN)
    found = [descriptor(table.take(list(range(s, min(s + DRAWN, len(table)))))) for s in starts]
    return torch.cat(found).float().cpu().numpy()


def descriptors_of(model: Path, detector: Detector, paths: Sequence[Path], rules: Decoding) -> Tensor:
    """Those that the training of *model* left, or of image files *paths*, for a model that has none."""
    if (model / FILE).exists():
        return torch.from_numpy(np.load(model / FILE))
    return torch.cat(list(_described_files(detector, evenly(paths, PICTURES), rules)))


@torch.inference_mode()
def _described_files(detector: Detector, paths: Sequence[Path], rules: Decoding) -> Iterator[Tensor]:
    rules = detector.rules(rules)
    step = 1 if rules.tiles else at_once(max(detector.sizes))  # a large picture has many pieces
    for start in progress(range(0, len(paths), step), f"describing {len(paths)} good images"):
        pictures = load_batch(paths[start : start + step], detector.sizes, rules)
        yield descriptor(detector.prepare(pictures))
