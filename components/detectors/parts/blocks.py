"""Small exportable pieces that several detectors share."""

from collections.abc import Callable, Iterable
from functools import cache, reduce
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.detectors.contract import OnePass, Phase, Table, scratch

SEARCHED = (
    512  # rows of a bank whose distances are held at once; the fastest of 256 to 10,000 in ONNX Runtime and torch
)
POSITIONS = "standardised positions"  # name of the phase that takes a map position by position


class GaussianBlur(nn.Module):
    """Separable Gaussian over maps (B, 1, h, w), truncated at four sigma, edges replicated; enlarged before to *size*.

    Two products with matrices that hold both steps: a convolution of one channel costs ONNX Runtime as much as of
    eight. Sigma is in pixels of *size*; 0 leaves maps as they are.
    """

    def __init__(self, sigma: float) -> None:
        super().__init__()
        self.sigma = float(sigma)

    def forward(self, maps: Tensor, size: tuple[int, int] | None = None, corners: bool = False) -> Tensor:
        shape = (int(maps.shape[2]), int(maps.shape[3]))
        size = size or shape
        if not self.sigma and size == shape:
            return maps
        rows, columns = (
            torch.tensor(smoothing(self.sigma, *pair, corners), dtype=maps.dtype, device=maps.device)
            for pair in zip(shape, size, strict=True)
        )
        return rows @ maps @ columns.T


@cache
def smoothing(sigma: float, count: int, side: int, corners: bool) -> np.ndarray:
    """What makes *count* numbers *side* (bilinear, as ``upsample``) and blurs them: (side, count)."""
    places = np.linspace(0, count - 1, side) if corners else (np.arange(side) + 0.5) * count / side - 0.5
    places = places.clip(0, count - 1)
    enlarged = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(count)))
    if not sigma:
        return enlarged
    radius = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(enlarged, ((radius, radius), (0, 0)), mode="edge")
    shares = kernel / kernel.sum()
    return np.sum([share * padded[at : at + side] for at, share in enumerate(shares)], axis=0)


class Standardise(nn.Module):
    """Per-channel standardisation of maps (B, C, h, w) by the mean and deviation of the fit normals; off: identity.

    A closed-form phase calls ``add`` with every batch and ``finish`` once. Maps of several kinds, stacked as
    channels, are brought to one scale for their fusion in the same way.
    """

    mean: Tensor
    std: Tensor
    sums: Tensor

    def __init__(self, channels: int, active: bool) -> None:
        super().__init__()
        self.active = active
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        scratch(self, "sums", torch.zeros(3, channels, dtype=torch.float64))

    def forward(self, maps: Tensor) -> Tensor:
        return (maps - self.mean) / self.std if self.active else maps

    def add(self, maps: Tensor) -> None:
        rows = maps.double()
        count = torch.full_like(self.sums[0], rows[:, 0].numel())
        self.sums += torch.stack([count, rows.sum((0, 2, 3)), rows.square().sum((0, 2, 3))])

    def measured(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of what was added so far, (1, C, 1, 1) each."""
        mean = self.sums[1] / self.sums[0]
        spread = (self.sums[2] / self.sums[0] - mean.square()).clamp_min(0).sqrt()
        spread = spread.clamp_min(1e-3 * float(spread.max()) + 1e-12)
        return mean.view(1, -1, 1, 1).to(self.mean.dtype), spread.view(1, -1, 1, 1).to(self.std.dtype)

    def finish(self) -> None:
        for kept, found in zip((self.mean, self.std), self.measured(), strict=True):
            kept.copy_(found)


class Positions(Standardise):
    """Each position of maps (B, C, side, side) by its own mean and deviation on the fit normals; off: identity.

    What always differs at a place, such as an edge of the part, then counts for little there. Assumes parts that lie
    where they lay.
    """

    def __init__(self, positions: int, active: bool) -> None:
        super().__init__(positions if active else 1, active)  # off, it would be megabytes of zeros in every model

    def forward(self, maps: Tensor) -> Tensor:
        return super().forward(_by_position(maps)).view_as(maps) if self.active else maps

    def add(self, maps: Tensor) -> None:
        super().add(_by_position(maps))

    def ahead(self, maps: Tensor) -> Tensor:
        """What ``forward`` will make of *maps* once ``finish`` has run."""
        mean, std = self.measured()
        return ((_by_position(maps) - mean) / std).view_as(maps)

    def phases(self, table: Table, maps: Callable[[Any], Tensor]) -> Iterable[Phase]:
        """The phase that measures *maps* of every batch of the fit normals, if it is asked for.

        It is optional: undone, the positions are left as they are (docs/adr/0016).
        """
        if self.active:
            yield OnePass(POSITIONS, table, lambda batch: self.add(maps(batch)), self.finish, optional=True, sums=True)


def _by_position(maps: Tensor) -> Tensor:
    return maps.flatten(1)[..., None, None]


def upsample(maps: Tensor, size: tuple[int, int], corners: bool = False) -> Tensor:
    """Bilinear; (B, C, h, w) -> (B, C, *size). Half-pixel centres, or with *corners* the corner pixels aligned."""
    if (maps.shape[2], maps.shape[3]) == tuple(size):
        return maps
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=corners)


def box_mean(maps: Tensor, side: int, margin: int = 0) -> Tensor:
    """Mean over every box of *side* x *side*, zeros beyond a border of *margin*: (B, C, H, W) -> (B, C, H', W').

    Rows, then columns: ONNX Runtime's pooling visits the whole box for every pixel.
    """
    rows = F.avg_pool2d(maps, (side, 1), 1, (margin, 0))
    return F.avg_pool2d(rows, (1, side), 1, (0, margin))


def in_proportion(side: int, size: int) -> int:
    """The odd side of a box at *size* pixels that has *side* at 256, the nearest there is."""
    return 2 * round((side * size / 256 - 1) / 2) + 1


def largest(maps: Tensor, share: float) -> Tensor:
    """Mean of the largest *share* of each map, at least of one position: (B, C, H, W) -> (B,)."""
    values = maps.flatten(1)
    if share >= 1:
        return values.mean(1)  # no graph needs to sort for it
    return values.topk(max(1, round(share * values.shape[1])), dim=1).values.mean(1)


def focal(logits: Tensor, target: Tensor, gamma: float = 2.0, alpha: float | None = None) -> Tensor:
    """Focal loss of a binary map, averaged (Lin et al., ICCV 2017); *alpha* is the weight of the anomalous class."""
    plain = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    weight = 1.0 if alpha is None else alpha * target + (1 - alpha) * (1 - target)
    return (weight * plain * (1 - torch.exp(-plain)) ** gamma).mean()


def anomaly_head(inputs: int, outputs: int = 1) -> nn.Conv2d:
    """Logits of anomaly by a 3 x 3 convolution whose first ones are -3: they are rare (Lin et al., section 3.3)."""
    head = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.constant_(head.bias, -3.0)  # type: ignore[arg-type]
    return head


def squared_distances(queries: Tensor, bank: Tensor) -> Tensor:
    """(N, D), (M, D) -> (N, M); the matmul form, because cdist does not export."""
    return (products(queries, bank) + queries.square().sum(1, keepdim=True)).clamp_min(0)  # rounding: just below zero


def nearest(queries: Tensor, bank: Tensor) -> tuple[Tensor, Tensor]:
    """Distance to and index of the nearest row of *bank* (M, D) for each query (N, D): (N,), (N,)."""
    # What is constant per query is added behind the minimum: one pass over the (N, M) block in place of three.
    least, index = products(queries, bank).min(1)
    return (least + queries.square().sum(1)).clamp_min(0).sqrt(), index


def distance(queries: Tensor, bank: Tensor) -> Tensor:
    """Distance to the nearest row of *bank* (M, D) for each query (N, D): (N,); what ``nearest`` says, sooner.

    The bank is searched in blocks whose distances stay in the processor's cache: never an (N, M) block.
    """
    least = reduce(torch.minimum, (products(queries, rows).amin(1) for rows in bank.split(SEARCHED)))
    return (least + queries.square().sum(1)).clamp_min(0).sqrt()


def beyond(queries: Tensor, bank: Tensor, radius: float) -> Tensor:
    """Which queries (N, D) are farther than *radius* from all rows of *bank* (M, D): (N,) bool, as ``distance`` says.

    A query that one block of the bank covers is not compared with the next ones: most are covered early.
    """
    left, own = torch.arange(len(queries), device=queries.device), queries.square().sum(1)
    for rows in bank.split(SEARCHED):
        far = (products(queries[left], rows).amin(1) + own[left]).clamp_min(0).sqrt() > radius
        left = left[far]
    return torch.zeros(len(queries), dtype=torch.bool, device=queries.device).index_fill(0, left, True)


def products(queries: Tensor, bank: Tensor) -> Tensor:
    return torch.addmm(bank.square().sum(1), queries, bank.T, alpha=-2)
