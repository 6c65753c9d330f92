"""Which rows a bank under a cap keeps of all that a one-pass phase offers: a drawn subset, never a fixed stride.

A stride that divides the number of patches of an image keeps the same positions of every image and nothing else; one
that divides the number of cameras keeps one camera.
"""

import hashlib

import torch
from torch import Tensor, nn

from components.detectors.contract import scratch


class Draw(nn.Module):
    """At most *size* of the offered rows, each with the same chance, in the order in which they are offered.

    A function of the seed that the detector was made with and of *name*, and of nothing that ran before: a resumed
    phase keeps the same rows. Memory: one byte per offered row, eight while they are drawn.
    """

    seed: Tensor

    def __init__(self, size: int, name: str) -> None:
        super().__init__()
        self.size, self.name = size, name
        scratch(self, "seed", torch.tensor(torch.initial_seed() % 2**63))
        self.kept = torch.ones(size, dtype=torch.bool)  # until more are expected

    def expect(self, offered: int) -> None:
        """So many rows will be offered; where that is no more than *size*, all are kept."""
        text = f"{int(self.seed)}/{self.name}"
        number = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        order = torch.randperm(offered, generator=torch.Generator().manual_seed(number))
        self.kept = torch.zeros(offered, dtype=torch.bool)
        self.kept[order[: self.size]] = True

    def among(self, first: int, count: int) -> tuple[Tensor, int]:
        """Of the *count* rows from number *first* on, the indices (K,) of those kept, and where in the bank they go."""
        return self.kept[first : first + count].nonzero()[:, 0], int(self.kept[:first].sum())
