"""Transformer pieces of the feature-reconstructing detectors, spelled out so that they export."""

import math
from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.core.errors import SettingsError
from components.detectors.contract import FeatureDetector, OnePass, Phase, Scores, Table
from components.detectors.parts.blocks import Positions, Standardise, box_mean, upsample


class Attention(nn.Module):
    """Multi-head attention; (B, L, D), (B, S, D), (B, S, D) -> (B, L, D). *hidden* (L, S) is added to the logits."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None = None) -> Tensor:
        q, k, v = self._split(self.query(query)), self._split(self.key(key)), self._split(self.value(value))
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=hidden)
        return self.out(found.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, heads, L, D / heads)


class FeedForward(nn.Sequential):
    """Two linear layers with an activation between them."""

    def __init__(self, width: int, hidden: int, dropout: float = 0.0, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__(nn.Linear(width, hidden), activation(), nn.Dropout(dropout), nn.Linear(hidden, width))


class EncoderLayer(nn.Module):
    """Post-norm self-attention and feed-forward; the position is added to queries and keys only."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.feed = Attention(width, heads), FeedForward(width, hidden, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, position: Tensor, hidden: Tensor | None = None) -> Tensor:
        placed = x + position
        x = self.norms[0](x + self.dropout(self.attention(placed, placed, x, hidden)))
        return self.norms[1](x + self.dropout(self.feed(x)))  # type: ignore[no-any-return]


class DecoderLayer(nn.Module):
    """Post-norm: attention to *first*, attention to *second*, feed-forward; residuals run along the target only."""

    def __init__(self, width: int, heads: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attentions = nn.ModuleList(Attention(width, heads) for _ in range(2))
        self.feed = FeedForward(width, hidden, dropout)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, target: Tensor, first: Tensor | None, second: Tensor, position: Tensor, hidden: Tensor | None = None
    ) -> Tensor:
        """*first* None: the target itself (self-attention)."""
        for attention, norm, source in zip(self.attentions, self.norms, (first, second), strict=False):
            source = target if source is None else source
            target = norm(target + self.dropout(attention(target + position, source + position, source, hidden)))
        return self.norms[2](target + self.dropout(self.feed(target)))  # type: ignore[no-any-return]


class PreNormLayer(nn.Module):
    """The block of a vision transformer: normalise, attend, add; normalise, feed forward, add."""

    def __init__(self, width: int, heads: int, ratio: float = 4.0) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.feed = FeedForward(width, int(ratio * width), activation=nn.GELU)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](x)
        x = x + self.attention(y, y, y)
        return x + self.feed(self.norms[1](x))  # type: ignore[no-any-return]


class Rebuilder(FeatureDetector):
    """A detector that rebuilds the features of all taps on one grid; ``settings`` have *grid* and *standardise*."""

    def __init__(self, settings: Any, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        self.channels = sum(self.backbone.channels)
        self.standardise = Standardise(self.channels, settings.standardise)

    def statistics(self, table: Table) -> Iterable[Phase]:
        """The phase that standardised channels need, if they are."""
        if self.settings.standardise:
            grid, standardise = self.settings.grid, self.standardise
            add = lambda f: standardise.add(together(f, grid))  # noqa: E731
            yield OnePass("channels", table, add, standardise.finish, sums=True)

    def target(self, features: list[Tensor]) -> Tensor:
        """What is rebuilt, (B, C, grid, grid)."""
        return self.standardise(together(features, self.settings.grid))  # type: ignore[no-any-return]


class TokenRebuilder(Rebuilder):
    """Scores by the distance of tokens and their reconstruction, as UniAD and ADTR do.

    ``settings`` have *pool* and *positions*.
    """

    def __init__(self, settings: Any, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        self.positions = Positions(settings.grid**2, settings.positions)

    @abstractmethod
    def rebuild(self, rows: Tensor) -> Tensor:
        """Tokens (B, L, C) -> (B, L, C)."""

    def difference(self, features: list[Tensor]) -> Tensor:
        """Tokens minus reconstruction, (B, L, C)."""
        rows = tokens(self.target(features))
        return rows - self.rebuild(rows)

    def distance(self, features: list[Tensor]) -> Tensor:
        """(B, 1, grid, grid)."""
        return untokens(self.difference(features).norm(dim=2, keepdim=True), self.settings.grid)

    def score(self, features: list[Tensor], size: tuple[int, int]) -> Scores:
        distance = self.positions(self.distance(features))
        own = upsample(distance, (self.size, self.size), corners=True)
        return Scores(pooled_maximum(own, self.settings.pool), upsample(distance, size, corners=True))


def together(features: list[Tensor], grid: int) -> Tensor:
    """All taps on one grid, concatenated: (B, sum C, grid, grid)."""
    return torch.cat([upsample(f, (grid, grid), corners=True) for f in features], 1)


def tokens(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B, h * w, C)."""
    return maps.flatten(2).transpose(1, 2)


def untokens(rows: Tensor, grid: int) -> Tensor:
    """(B, grid * grid, C) -> (B, C, grid, grid)."""
    return rows.transpose(1, 2).unflatten(2, (grid, grid))


def pooled_maximum(maps: Tensor, pool: int) -> Tensor:
    """(B, 1, H, W) -> (B,): the largest mean over a window of *pool* x *pool*."""
    return box_mean(maps, pool).flatten(1).max(1).values


def neighbourhood(grid: int, window: int) -> Tensor | None:
    """What attention may not see: (L, L), -1e4 where the key lies in the window around the query; None without one.

    Raises SettingsError when the window would hide every position.
    """
    if not window:
        return None
    if window >= grid:
        raise SettingsError(f"window {window} hides the whole grid of {grid}; choose a smaller one")
    at = torch.stack(torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij"), -1).flatten(0, 1)
    near = (at[:, None] - at[None]).abs().amax(2) <= window // 2
    return torch.where(near, -1e4, 0.0)


def waves(grid: int, width: int) -> Tensor:
    """Fixed 2-D sine-cosine position embedding, (grid * grid, width); *width* must divide by four."""
    if width % 4:
        raise SettingsError(f"width {width} must be a multiple of 4")
    rates = torch.exp(-math.log(10_000) * torch.arange(width // 4) / (width // 4))
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    angles = [axis.flatten()[:, None] * rates for axis in (x, y)]
    return torch.cat([f(a) for a in angles for f in (torch.sin, torch.cos)], 1)


def initialise(module: nn.Module) -> None:
    """Xavier-uniform weights and zero biases for every linear and convolutional layer below *module*."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight.flatten(1) if layer.weight.dim() > 2 else layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
