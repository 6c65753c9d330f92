"""Memories of normal patterns that training writes and queries are replaced from."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Memory(nn.Module):
    """*slots* rows of width *width*, learned with everything else, in *parts* independent memories.

    ``forward`` replaces queries (parts, N, D) by convex combinations of the slots of their own part and returns these
    and the weights (parts, N, slots). Addressing is that of MemAE (Gong et al., ICCV 2019): softmax of the cosine over
    *temperature*; weights below *shrink* become zero and the others are scaled up to sum to one. With *most*, only
    that many of the nearest slots answer at all.
    """

    def __init__(
        self, slots: int, width: int, parts: int = 1, temperature: float = 0.1, shrink: float = 0.0, most: int = 0
    ) -> None:
        super().__init__()
        self.temperature, self.shrink, self.most = temperature, shrink, min(most, slots)
        self.slots = nn.Parameter(torch.randn(parts, slots, width) / width**0.5)

    def forward(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        weights = self.address(queries)
        return weights @ self.slots, weights

    def cosine(self, queries: Tensor) -> Tensor:
        """Of every query with every slot of its part: (parts, N, D) -> (parts, N, slots)."""
        return F.normalize(queries, dim=2) @ F.normalize(self.slots, dim=2).transpose(1, 2)

    def address(self, queries: Tensor) -> Tensor:
        """(parts, N, D) -> (parts, N, slots), rows sum to one."""
        cosine = self.cosine(queries)
        if self.most:
            least = cosine.topk(self.most, dim=2).values[..., -1:]
            cosine = cosine.masked_fill(cosine < least, -torch.inf)
        weights = (cosine / self.temperature).softmax(2)
        if not self.shrink:
            return weights
        over = F.relu(weights - self.shrink)
        kept = over * weights / (over + 1e-12)  # a threshold that lets gradients through
        return kept / kept.sum(2, keepdim=True).clamp_min(1e-12)


def entropy(weights: Tensor) -> Tensor:
    """Mean entropy of address weights (..., slots): small when few slots answer."""
    return -(weights * weights.clamp_min(1e-12).log()).sum(-1).mean()


def as_queries(maps: Tensor) -> Tensor:
    """Every position of maps (B, C, h, w) as a query of one memory: (1, B * h * w, C)."""
    return maps.permute(0, 2, 3, 1).reshape(1, -1, maps.shape[1])


def as_maps(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of ``as_queries``: (1, B * h * w, C) -> (B, C, h, w) in the grid of *like*."""
    return rows.view(-1, like.shape[2], like.shape[3], rows.shape[2]).permute(0, 3, 1, 2)
