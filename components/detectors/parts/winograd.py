"""3 x 3 convolutions with a quarter of the products: Winograd's F(4 x 4, 3 x 3) for training on a processor.

Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, arXiv 1509.09308: an output tile of 4 x 4
is made of an input tile of 6 x 6, each of whose 36 transformed values is a matrix product of its own. Values and
gradients are those of the convolution but for rounding, some 1e-5 of the largest value where it has 1e-6.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 4
WIDE = 48  # channels from which it is faster than the library's convolution (maps of 8 x 8 to 32 x 32)
INPUT: list[list[float]] = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0]]
INPUT += [[0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]
WEIGHT = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6]]
WEIGHT += [[1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]
OUTPUT: list[list[float]] = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


def convolved(maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(B, C, h, w) with channels last in memory -> (B, K, h, w): a convolution with padding that keeps the size."""
    whole = maps.shape[2] % TILE == 0 and maps.shape[3] % TILE == 0
    if weight.shape[-1] == 3 and weight.shape[1] >= WIDE and whole:
        return Winograd.apply(maps, weight, bias)  # type: ignore[no-any-return]
    return F.conv2d(maps, weight, bias, padding=weight.shape[-1] // 2)


class Winograd(torch.autograd.Function):
    """Maps (B, C, h, w) with sides that are multiples of TILE, weights (K, C, 3, 3), bias (K,) -> (B, K, h, w)."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        (b, c, h, w), k = maps.shape, len(weight)
        tiles = _tiles(maps)
        seen = (_both(INPUT, maps) @ tiles.view(36, -1)).view(36, -1, c)
        weights = (_both(WEIGHT, maps) @ weight.permute(2, 3, 1, 0).reshape(9, -1)).view(36, c, k)
        said = _both(OUTPUT, maps) @ torch.bmm(seen, weights).view(36, -1)
        found = maps.new_empty(b, h, w, k)
        torch.add(_placed(said, b, h, w, k), bias, out=found.view(b, h // TILE, TILE, w // TILE, TILE, k))
        ctx.save_for_backward(seen, weights)
        ctx.shape = maps.shape
        return found.permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        seen, weights = ctx.saved_tensors
        (b, c, h, w), k, last = ctx.shape, weights.shape[2], grads[0].permute(0, 2, 3, 1)
        cut = last.reshape(b, h // TILE, TILE, w // TILE, TILE, k).permute(2, 4, 0, 1, 3, 5)
        back = (_both(OUTPUT, last).T @ cut.reshape(16, -1)).view(36, -1, k)
        for_weights = _both(WEIGHT, last).T @ torch.bmm(seen.transpose(1, 2), back).view(36, -1)
        more = for_weights.view(3, 3, c, k).permute(3, 2, 0, 1), last.reshape(-1, k).sum(0)
        if not ctx.needs_input_grad[0]:
            return None, *more
        tiles = _both(INPUT, last).T @ torch.bmm(back, weights.transpose(1, 2)).view(36, -1)
        return _together(tiles, b, c, h, w), *more


def _both(rows: list[list[float]], like: Tensor) -> Tensor:
    """The transform of both sides of a tile as one matrix."""
    one = torch.tensor(rows, dtype=like.dtype)
    return torch.kron(one, one)


def _tiles(maps: Tensor) -> Tensor:
    """(6, 6, B, h / 4, w / 4, C): the overlapping tiles of maps that are padded by one."""
    b, c, h, w = maps.shape
    padded = maps.new_zeros(b, h + 2, w + 2, c)
    padded[:, 1:-1, 1:-1] = maps.permute(0, 2, 3, 1)
    image, row, column, _ = padded.stride()
    strides = (row, column, image, TILE * row, TILE * column, 1)
    return padded.as_strided((6, 6, b, h // TILE, w // TILE, c), strides).contiguous()


def _placed(tiles: Tensor, b: int, h: int, w: int, k: int) -> Tensor:
    """Output tiles (16, B * h / 4 * w / 4 * K) where they belong: (B, h / 4, 4, w / 4, 4, K)."""
    return tiles.view(TILE, TILE, b, h // TILE, w // TILE, k).permute(2, 3, 0, 4, 1, 5)


def _together(tiles: Tensor, b: int, c: int, h: int, w: int) -> Tensor:
    """What the overlapping tiles (36, B * h / 4 * w / 4 * C) add up to, (B, C, h, w): the transpose of ``_tiles``."""
    each = tiles.view(6, 6, b, h // TILE, w // TILE, c).permute(2, 3, 0, 4, 1, 5)
    padded = tiles.new_zeros(b, h + TILE, w + TILE, c)
    blocks = padded.view(b, h // TILE + 1, TILE, w // TILE + 1, TILE, c)
    for own, down in ((slice(None, -1), slice(TILE)), (slice(1, None), slice(TILE, 6))):
        for beside, right in ((slice(None, -1), slice(TILE)), (slice(1, None), slice(TILE, 6))):
            part = each[:, :, down, :, right]
            blocks[:, own, : part.shape[2], beside, : part.shape[4]] += part
    return padded[:, 1 : h + 1, 1 : w + 1].permute(0, 3, 1, 2)
