"""The one path from file bytes to the tensor that ``Detector.forward`` takes.

Decoding happens here, resizing and normalising in the detector's graph (docs/adr/0003-pixels.md). ``resize`` is the
same operation in both places, so pixels that were resized once pass a detector's own resize unchanged.
"""

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
    return resize(to_tensor(decode(path, rules=rules))[None], size)[0]
