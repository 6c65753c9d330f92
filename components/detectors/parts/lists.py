"""An inverted file over a memory bank: a query is compared with the rows of the few lists nearest to it.

Jégou et al., TPAMI 2011, section IV: rows are grouped by k-means, and a query visits the lists of its nearest centres.
A distance found that way is never too small, and too large where the nearest row lies in a list that was not visited.
A query near one centre has little to look for at the next: with a *reach* it visits only centres about as near.
"""

import math

import torch
from torch import Tensor

from components.detectors.contract import Counting
from components.detectors.parts.blocks import distance, nearest, products

ROUNDS = 8  # of k-means
AGAIN = 16  # positions of a map whose distances are found anew in the whole bank
NONE = -1  # in place of a list that is not visited
FEW = 16  # rows a list, in the mean: with fewer the whole bank is visited as soon


class Lists(Counting):
    """At most *most* lists of a bank (size, channels), *probes* of which a query visits; few rows have none.

    With a *reach*, of these only the ones whose centre's squared distance is above that of the nearest by at most so
    many times what rows lie apart from their own centre; 0: all of them. State: ``centres`` (most, channels),
    ``order`` (size,) the bank's rows list by list, ``lengths`` (most,), with a reach ``spread`` (): the mean squared
    distance of a row to its centre.
    """

    centres: Tensor
    order: Tensor
    lengths: Tensor
    spread: Tensor

    def __init__(self, size: int, channels: int, most: int, probes: int, reach: float = 0.0) -> None:
        super().__init__()
        self.probes, self.reach = probes, reach
        self.ends: list[int] = []  # of the lists within ``order``
        self.limit = math.inf  # of a visited centre's squared distance above the nearest one's
        self.register_buffer("centres", torch.zeros(most, channels))
        self.register_buffer("order", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("lengths", torch.zeros(most, dtype=torch.int64))
        if reach:
            self.register_buffer("spread", torch.zeros(()))

    def build(self, known: Tensor) -> None:
        """Group the rows *known* (N, channels) of the bank."""
        self.lengths.zero_()
        if len(known) >= FEW * len(self.lengths):
            centres, of = _k_means(known, len(self.lengths))
            self.centres[: len(centres)] = centres
            self.order[: len(of)] = of.argsort(stable=True)
            self.lengths[: len(centres)] = of.bincount(minlength=len(centres))
            if self.reach:
                self.spread.copy_((known - centres[of]).square().sum(1).mean())

    def read(self) -> None:
        self.ends = self.lengths[self.lengths > 0].cumsum(0).tolist()
        self.limit = self.reach * float(self.spread) if self.reach else math.inf

    def distance(self, queries: Tensor, bank: Tensor) -> Tensor:
        """Distance to the nearest row of *bank* in the visited lists for each query (N, channels): (N,)."""
        self.counted()
        if not self.ends:
            return distance(queries, bank)
        centres, rows = self.centres[: len(self.ends)], bank[self.order[: self.ends[-1]]]
        least = least_in_lists(queries, centres, rows, self.ends, min(self.probes, len(self.ends)), self.limit)
        return (least + queries.square().sum(1)).clamp_min(0).sqrt()


@torch.library.custom_op("loupe::least_in_lists", mutates_args=())
def least_in_lists(
    queries: Tensor, centres: Tensor, rows: Tensor, ends: list[int], probes: int, limit: float
) -> Tensor:
    """The least of ``products`` of each query (N, C) with the *rows* (M, C) of the lists that it visits: (N,).

    These are the *probes* nearest ones, without those whose centre is farther than the nearest by more than *limit*.
    List by list, with all queries that visit it. An operator by itself, because how many they are is known only when it
    runs: export/operators.py writes it into a graph.
    """
    near = products(queries, centres).topk(probes, dim=1, largest=False)
    pairs = near.indices.where(near.values - near.values[:, :1] <= limit, NONE).flatten()
    found, start = queries.new_full((len(pairs),), math.inf), 0
    for number, end in enumerate(ends):
        at = (pairs == number).nonzero()[:, 0]
        found[at] = products(queries[at // probes], rows[start:end]).amin(1)
        start = end
    return found.view(-1, probes).amin(1)


@least_in_lists.register_fake
def _(
    queries: Tensor,
    centres: Tensor,  # noqa: ARG001
    rows: Tensor,  # noqa: ARG001
    ends: list[int],  # noqa: ARG001
    probes: int,  # noqa: ARG001
    limit: float,  # noqa: ARG001
) -> Tensor:
    return queries.new_empty(queries.shape[0])  # len() would fix it


OPERATOR = torch.ops.loupe.least_in_lists.default


def _k_means(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Centres (L, C) that have rows, at most *count*, and the centre of each row (N,); the same each time."""
    centres = rows[torch.linspace(0, len(rows) - 1, count).long()]
    for _ in range(ROUNDS):
        of = nearest(rows, centres)[1]
        of = of.unique(return_inverse=True)[1]  # a centre that lost all its rows goes
        sums = torch.zeros(int(of.max()) + 1, rows.shape[1], dtype=rows.dtype, device=rows.device)
        centres = sums.index_add(0, of, rows) / of.bincount()[:, None]
    return centres, of
