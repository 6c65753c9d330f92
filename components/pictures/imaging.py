"""The one path from file bytes to the tensor that ``Detector.forward`` takes.

Decoding happens here, resizing and normalising in the detector's graph (docs/adr/0003-pixels.md). ``resize`` is the
same operation in both places, and a picture goes through it once for each size that a detector looks at: a size made
from another size has other pixels than one made from the file (docs/adr/0023-one-chain.md).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.kept import decode


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float().div_(255)


def resize(images: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, size, size): bilinear, anti-aliased when scaling down, half-pixel centres."""
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def load(path: Path, size: int, rules: Decoding = DEFAULT) -> Tensor:
    """Decode and resize one file to (3, size, size) float32 in [0, 1]."""
    return load_sizes(path, (size,), rules)[0]


def load_sizes(path: Path, sizes: Sequence[int], rules: Decoding = DEFAULT) -> tuple[Tensor, ...]:
    """Decode one file once and resize it to each of *sizes*, never one from another: (3, size, size) each."""
    return tuple(picture[0] for picture in at_sizes(to_tensor(decode(path, rules=rules))[None], sizes))


def at_sizes(images: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """(B, 3, H, W) -> (B, 3, size, size) for each of *sizes*."""
    return tuple(resize(images, size) for size in sizes)


def load_batch(paths: Sequence[Path], sizes: Sequence[int], rules: Decoding = DEFAULT) -> tuple[Tensor, ...]:
    """``load_sizes`` of several files, (B, 3, size, size) each; one picture at a time is held at its full size."""
    return tuple(torch.stack(column) for column in zip(*(load_sizes(p, sizes, rules) for p in paths), strict=True))
