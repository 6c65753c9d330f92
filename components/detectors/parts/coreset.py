"""A coreset built while streaming, under an absolute cap, by the doubling algorithm for k-center.

Charikar et al., STOC 1997: each accepted row is farther than the current radius from all kept ones; when the bank is
full the radius grows and the bank is thinned.
"""

import torch
from torch import Tensor

from components.detectors.contract import Counting
from components.detectors.parts.blocks import beyond, squared_distances

CHUNK = 1024  # rows compared at once: small enough for the block of distances to stay in cache
FAR = 1e4  # rows that hold nothing stay far away from every feature


class Coreset(Counting):
    """At most *size* rows (N, C); ``count`` of them are filled."""

    bank: Tensor
    count: Tensor
    radius: Tensor

    def __init__(self, size: int, channels: int, growth: float) -> None:
        super().__init__()
        self.size, self.growth, self.filled = size, growth, size
        self.register_buffer("bank", torch.full((size, channels), FAR))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("radius", torch.zeros(()))

    def read(self) -> None:
        self.filled = int(self.count)

    def known(self) -> Tensor:
        """The filled rows."""
        self.counted()
        return self.bank[: self.filled]

    def searched(self) -> Tensor:
        """The rows that a query is compared with: the filled ones, or all while there are none."""
        known = self.known()
        return known if len(known) else self.bank

    def fill(self) -> None:
        """Be as full as it may become, of rows at random to which no other is new: for what it costs, before it has
        learned."""
        self.bank.copy_(torch.rand(self.bank.shape, generator=torch.Generator().manual_seed(0)))
        self.count.fill_(self.size)
        self.radius.fill_(torch.inf)

    def offer(self, rows: Tensor) -> None:
        """Add the rows (N, C) that are farther than the radius from the bank."""
        for chunk in rows.split(CHUNK):
            if self.radius == 0:
                self.radius.fill_(_first_radius(chunk))
            self._accept(chunk)

    def _accept(self, rows: Tensor) -> None:
        rows = self._novel(rows)
        while int(self.count) + len(rows) > self.size:
            self.radius *= self.growth
            self._keep(_cover(self.known(), float(self.radius)))
            rows = self._novel(rows)
        self.bank[int(self.count) : int(self.count) + len(rows)] = rows
        self.count += len(rows)

    def _novel(self, rows: Tensor) -> Tensor:
        known = self.known()
        if len(known):
            rows = rows[beyond(rows, known, float(self.radius))]
        return rows[_cover(rows, float(self.radius))]

    def _keep(self, chosen: Tensor) -> None:
        kept = self.known()[chosen]
        self.bank.fill_(FAR)
        self.bank[: len(kept)] = kept
        self.count.fill_(len(kept))


def farthest_first(rows: Tensor, count: int) -> Tensor:
    """Indices of a greedy k-center choice: each next row is the one farthest from those chosen; (count,)."""
    chosen = [0]
    distance = squared_distances(rows, rows[:1])[:, 0]
    while len(chosen) < min(count, len(rows)):
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, squared_distances(rows, rows[chosen[-1] :][:1])[:, 0])
    return torch.tensor(chosen, dtype=torch.int64)


def _first_radius(rows: Tensor) -> float:
    """A tenth of the median distance within the first chunk: small, the stream grows it to fit."""
    return float(0.1 * squared_distances(rows[:512], rows[:512]).median().sqrt()) or 1e-6


def _cover(rows: Tensor, radius: float) -> Tensor:
    """Indices of a greedy cover of *rows*: in order, each kept row removes the later ones within *radius*.

    Block by block: what rows of earlier blocks cover goes first, then the block is covered by itself. The result is
    that of one pass over all rows, and no more than CHUNK rows are compared with those kept.
    """
    chosen, kept = [torch.zeros(0, dtype=torch.int64)], rows[:0]
    for start in range(0, len(rows), CHUNK):
        block = rows[start : start + CHUNK]
        free = beyond(block, kept, radius).nonzero()[:, 0] if len(kept) else torch.arange(len(block))
        own = free[_cover_block(block[free], radius)]
        chosen.append(start + own.cpu())
        kept = torch.cat([kept, block[own]])
    return torch.cat(chosen)


def _cover_block(rows: Tensor, radius: float) -> list[int]:
    near = (squared_distances(rows, rows) <= radius * radius).cpu().numpy()
    left = torch.ones(len(rows), dtype=torch.bool).numpy()
    kept = []
    for i in range(len(rows)):
        if left[i]:
            kept.append(i)
            left &= ~near[i]
    return kept
