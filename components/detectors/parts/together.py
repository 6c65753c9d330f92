"""What processes that share a batch know of it together: sums over all of its rows, and what the first of them drew.

A process that has its batch to itself, which is the usual case, exchanges nothing: all here is then the identity.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

_shared = False  # whether the batch at hand is one part of several


@contextmanager
def sharing(shared: bool) -> Iterator[None]:
    """Within the block the batch is a part: other processes hold the other rows, and take the same steps."""
    global _shared  # the layers of a detector have no other way to learn of it
    before, _shared = _shared, shared
    try:
        yield
    finally:
        _shared = before


class _Summed(torch.autograd.Function):
    """The sum over the processes; each one's loss depends on all of them, so the gradient is a sum as well."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        total = value.clone()
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        torch.distributed.all_reduce(total)
        return total


def summed(value: Tensor) -> Tensor:
    """*value* added over the parts of the batch; a gradient goes through it."""
    return _Summed.apply(value) if _shared else value  # type: ignore[no-untyped-call, no-any-return]


def firsts(value: Tensor) -> Tensor:
    """*value* as the process with the first rows has it: what was drawn by chance is the same for all."""
    if _shared:
        value = value.contiguous()
        torch.distributed.broadcast(value, 0)
    return value


def join_norms(module: nn.Module) -> None:
    """Let every batch normalisation of *module* take its statistics over all rows of a batch that is shared.

    ``nn.SyncBatchNorm`` does that too, but on GPUs alone.
    """
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.forward = MethodType(_joined, part)  # type: ignore[method-assign]


def _joined(norm: _BatchNorm, x: Tensor) -> Tensor:
    if not (_shared and norm.training):
        return type(norm).forward(norm, x)  # type: ignore[no-any-return]
    around, shape = [d for d in range(x.dim()) if d != 1], (1, -1, *[1] * (x.dim() - 2))
    count = float(summed(torch.tensor(x.numel() / x.shape[1], dtype=torch.float64, device=x.device)))
    exact = x.float()
    mean = summed(exact.sum(around)) / count
    variance = summed((exact - mean.view(shape)).square().sum(around)) / count  # not from squares: they would cancel
    if norm.track_running_stats and norm.running_mean is not None and norm.running_var is not None:
        _follow(norm, mean.detach(), variance.detach() * count / max(1.0, count - 1))
    scaled = (exact - mean.view(shape)) * (variance + norm.eps).rsqrt().view(shape)
    if norm.affine:
        scaled = scaled * norm.weight.view(shape) + norm.bias.view(shape)
    return scaled.to(x.dtype)


@torch.no_grad()
def _follow(norm: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """The running statistics, as torch moves them."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
    norm.running_var.lerp_(variance.to(norm.running_var.dtype), share)
