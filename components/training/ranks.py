"""The processes that train one detector together: who takes which rows, and what they tell each other.

Each process runs the whole training with the same seed and keeps the whole detector. They differ in the rows of a
batch that they take; what follows from all rows is exchanged, so that every process has the same state behind each
step. Only the first one writes.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from components.detectors.contract import scratch_keys
from components.detectors.parts.together import Part
from components.training.checkpoint import learned

T = TypeVar("T")


class Ranks:
    """This process, number *rank* of *count*. Of one alone every exchange is the identity."""

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device | str = "cpu") -> None:
        self.rank, self.count, self.device = rank, count, device

    @property
    def writes(self) -> bool:
        """Whether files are this process's to write."""
        return self.rank == 0

    def first(self, value: T) -> T:
        """*value* as the first process has it."""
        if self.count == 1:
            return value
        held = [value]
        torch.distributed.broadcast_object_list(held, 0)
        return held[0]

    def all(self, value: T) -> list[T]:
        """What every process has, in their order."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        torch.distributed.all_gather_object(found, value)
        return found

    def part(self, rows: int) -> Part | None:
        """Which of the *rows* of a batch are this process's: as many as of any other, or one more or less.

        None where it takes all of them: it is alone, or there are too few, which each process takes in the same way.
        """
        if not rows >= self.count > 1:
            return None
        return Part(rows * self.rank // self.count, rows * (self.rank + 1) // self.count, rows)

    def share(self, rows: Sequence[int]) -> Sequence[int]:
        """This process's of *rows*, of which there may be too few for all."""
        start, end = (len(rows) * number // self.count for number in (self.rank, self.rank + 1))
        return rows[start:end]

    def together(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """Add up the gradients of *parameters* over the processes; the sum of the losses.

        A parameter that no process has a gradient for keeps none: an optimiser takes that for another thing than zero.
        """
        own = [float(loss.detach()), *(float(p.grad is not None) for p in parameters)]
        told = torch.tensor(own, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(told)
        total, *known = told.tolist()
        moved = [p for p, count in zip(parameters, known, strict=True) if count]
        for kind in {p.dtype for p in moved}:
            _add_gradients([p for p in moved if p.dtype == kind])
        return torch.tensor(total)

    def added(self, detector: nn.Module, before: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add up what each process has added to running sums since *before*; what they are now, for the next time."""
        for name, value in sums_of(detector).items():
            change = value - before[name]
            torch.distributed.all_reduce(change)
            value.copy_(before[name] + change)
        return {name: value.clone() for name, value in sums_of(detector).items()}

    def align(self, detector: nn.Module) -> None:
        """Give every process the state of the first: nothing, such as an order of sums on a GPU, drives them apart."""
        for value in learned(detector).values() if self.count > 1 else ():
            sent = value.detach().to(self.device).contiguous()
            torch.distributed.broadcast(sent, 0)
            if self.rank:
                value.detach().copy_(sent)


ALONE = Ranks()


def sums_of(detector: nn.Module) -> dict[str, Tensor]:
    """The running state of closed-form phases (``contract.scratch``)."""
    keys = scratch_keys(detector)
    return {name: value for name, value in detector.state_dict().items() if name in keys}


def _add_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """In one exchange: each by itself would wait for the slowest process a hundred times."""
    held = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in held])
    torch.distributed.all_reduce(flat)
    for parameter, part in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = part.view_as(parameter).clone()
