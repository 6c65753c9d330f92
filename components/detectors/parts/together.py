"""A batch that several processes share: what a loss computes of its own rows, as one process would of all of them.

Within ``sharing`` batch normalisation takes its statistics over all rows (``nn.SyncBatchNorm`` does that on GPUs
alone). What a loss draws by row, it draws for all rows and keeps its own, so that every process goes on with the random
numbers of one. Outside, and of a process that has its batch to itself, nothing is exchanged and all is as it was.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


class Part(NamedTuple):
    """Rows *start* to *end* of the *rows* of a batch."""

    start: int
    end: int
    rows: int


_part: Part | None = None  # of the batch at hand, where it is shared


@contextmanager
def sharing(part: Part | None) -> Iterator[None]:
    """Within the block the batch is *part* of one; other processes take the same steps with the other rows."""
    global _part  # the layers of a detector have no other way to learn of it
    if part is None:
        yield
        return
    before, _part = _part, part
    try:
        with _Parted(part):
            yield
    finally:
        _part = before


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
    return value if _part is None else _Summed.apply(value)  # type: ignore[no-untyped-call, no-any-return]


def averaged(value: Tensor) -> Tensor:
    """*value*, a mean over the rows of this part, as the mean over all rows; a gradient goes through it."""
    return value if _part is None else summed(value * ((_part.end - _part.start) / _part.rows))


def firsts(value: Tensor) -> Tensor:
    """*value* as the process with the first rows has it: of rows that were drawn, each has others at hand."""
    if _part is not None:
        value = value.contiguous()
        torch.distributed.broadcast(value, 0)
    return value


class _Parted(TorchFunctionMode):
    """Takes the place of what looks at all rows of a batch, or draws for them."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        self.part = part

    def __torch_function__(self, function: Any, types: Any, given: Sequence[Any] = (), named: Any = None) -> Any:
        named = named or {}
        if function in (torch.rand, torch.randn):
            sizes = given[0] if given and not isinstance(given[0], int) else given
            return self._own(sizes, lambda wanted: function(wanted, **named))
        if function in (torch.rand_like, torch.randn_like):
            return self._own(given[0].shape, lambda wanted: function(_laid_out(given[0], wanted), **named))
        if function is torch.randint and len(given) > 1:
            *between, sizes = given
            return self._own(sizes, lambda wanted: torch.randint(*between, wanted, **named))
        if function is F.dropout:
            return self._dropped(*given, **named)
        if function is F.batch_norm:
            return _normalised(*given, **named)
        return function(*given, **named)

    def _own(self, sizes: Sequence[int], draw: Any) -> Tensor:
        """What *draw* makes of all rows, cut to those of this part; of a size that is no multiple of them, all."""
        own = self.part.end - self.part.start
        if not sizes or sizes[0] % own:
            return draw(tuple(sizes))  # type: ignore[no-any-return]
        each = sizes[0] // own
        made: Tensor = draw((each * self.part.rows, *sizes[1:]))
        return made[each * self.part.start : each * self.part.end]

    def _dropped(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return F.dropout(x, p, training, inplace)
        kept = self._own(x.shape, lambda wanted: _laid_out(x, wanted).bernoulli_(1 - p))
        return x * kept / (1 - p)


def _laid_out(x: Tensor, sizes: Sequence[int]) -> Tensor:
    """An empty tensor of *sizes* that lies in memory as *x* does: random numbers fill it in that order."""
    order = sorted(range(x.dim()), key=x.stride, reverse=True)
    return x.new_empty([sizes[d] for d in order]).permute([order.index(d) for d in range(x.dim())])


def _normalised(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """``F.batch_norm`` over the parts of all processes."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    around, shape = [d for d in range(x.dim()) if d != 1], (1, -1, *[1] * (x.dim() - 2))
    count = float(summed(torch.tensor(x.numel() / x.shape[1], dtype=torch.float64, device=x.device)))
    exact = x.to(torch.promote_types(x.dtype, torch.float32))
    mean = summed(exact.sum(around)) / count
    variance = summed((exact - mean.view(shape)).square().sum(around)) / count  # not from squares: they would cancel
    for kept, found in ((running_mean, mean), (running_var, variance * count / max(1.0, count - 1))):
        if kept is not None:
            kept.lerp_(found.detach().to(kept.dtype), momentum)
    scaled = (exact - mean.view(shape)) * (variance + eps).rsqrt().view(shape)
    if weight is not None:
        scaled = scaled * weight.view(shape)
    return (scaled if bias is None else scaled + bias.view(shape)).to(x.dtype)
