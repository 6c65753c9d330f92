"""The one path from file bytes to the tensor that ``Detector.forward`` takes.

Decoding happens here, resizing and normalising in the detector's graph (docs/adr/0003-pixels.md). ``resize`` is the
same operation in both places, and a picture goes through it once for each size that a detector looks at: a size made
from another size has other pixels than one made from the file (docs/adr/0023-one-chain.md).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.kept import decode
from components.pictures.measuring import is_grey
from components.pictures.tiles import pieces

LARGE = 1 << 20  # pixels from which channels go one by one: as floats all three take twelve bytes a pixel
CHANNELS = 3


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]; a window of frames likewise, frame by frame."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(pixels, -1, -3))).float().div_(255)


def resize(images: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, size, size): bilinear, anti-aliased when scaling down, half-pixel centres.

    Clips (B, T, 3, H, W) likewise, frame by frame.
    """
    if images.ndim == 5:
        return resize(images.flatten(0, 1), size).unflatten(0, (-1, images.shape[1]))
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def load_sizes(path: Path, sizes: Sequence[int], rules: Decoding = DEFAULT) -> tuple[Tensor, ...]:
    """Decode one file once and resize its pieces to each of *sizes*, never one from another: (n, 3, size, size) each.

    Where the rules cut no picture there is one piece, the whole; of a frame it is its window, (1, T, 3, size, size).
    """
    return seen_at(pieces(decode(path, rules=rules), rules.tiles, rules.roi), sizes)


def seen_at(pieces: Sequence[np.ndarray], sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Decoded pieces, uint8 (H, W, 3), as a detector sees them: (n, 3, size, size) float32 for each of *sizes*."""
    return _columns(_one_seen(piece, sizes) for piece in pieces)


def _one_seen(piece: np.ndarray, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """(1, 3, size, size) for each of *sizes*; the same bits by both ways, and of a grey piece one channel is enough."""
    if piece.size < CHANNELS * LARGE:
        return at_sizes(to_tensor(piece)[None], sizes)
    channels = np.split(piece, CHANNELS, axis=-1)
    alike = CHANNELS if is_grey(piece) else 1
    planes = [at_sizes(to_tensor(one)[None], sizes) for one in channels[::alike]]
    return tuple(torch.cat(column * alike, dim=-3) for column in zip(*planes, strict=True))


def _columns(rows: Iterable[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    return tuple(torch.cat(column) for column in zip(*rows, strict=True))


def at_sizes(images: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """(B, 3, H, W) -> (B, 3, size, size) for each of *sizes*."""
    return tuple(resize(images, size) for size in sizes)


def load_batch(paths: Sequence[Path], sizes: Sequence[int], rules: Decoding = DEFAULT) -> tuple[Tensor, ...]:
    """``load_sizes`` of several files, all their pieces in order; one picture at a time is held at its full size."""
    return _columns(load_sizes(p, sizes, rules) for p in paths)
