"""UniAD: one transformer rebuilds the features of all products at once (You et al., NeurIPS 2022, arXiv 2206.03687).

Three hindrances keep it from copying its input: attention that cannot see a position's neighbourhood, a learned query
in every decoder layer, and jittered features whose clean version is the target.
Ours (a setting each): standardised channels and positions.
Memory after fit: the transformer's weights, 7.7 million in the ``paper`` preset.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from components.backbones.extractor import BackboneSettings
from components.detectors.contract import MethodInfo, Optimise, Phase, TrainingData, epochs_of
from components.detectors.parts.transformers import (
    DecoderLayer,
    EncoderLayer,
    TokenRebuilder,
    initialise,
    neighbourhood,
    tokens,
)


@dataclass(frozen=True)
class UniADSettings:
    """Settings; *window*, *layer_queries* and *jitter* are the paper's three mechanisms."""

    backbone: BackboneSettings = BackboneSettings("tf_efficientnet_b4", (0, 1, 2, 3), 224)
    grid: int = 14
    width: int = 256
    heads: int = 8
    layers: int = 4
    feedforward: int = 1024
    dropout: float = 0.1
    window: int = 7  # side of the neighbourhood hidden from all attention (0: nothing is hidden)
    layer_queries: bool = True  # False: a plain decoder, whose layers carry on what the one before gave
    jitter: float = 20.0  # alpha of the paper's eq. 5 (0: none)
    jitter_share: float = 1.0  # of the training images that are jittered
    pool: int = 16  # side of the mean in front of the maximum that is the image score
    standardise: bool = False  # ours: channels to mean 0, deviation 1 on the fit normals
    positions: bool = False  # ours: each position of the map by its mean and deviation on the fit normals
    epochs: int = 1000
    draws: int = 0  # ours: at least so many images in all epochs, so that few images get more epochs
    batch_size: int = 64
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    drop_at: float = 0.8  # share of the steps after which the rate falls to a tenth
    clip: float = 0.1


class UniAD(TokenRebuilder):
    """Map: distance of features and their reconstruction, upsampled; image score: the largest local mean of it."""

    name = "uniad"
    settings_type = UniADSettings
    presets = {
        "paper": UniADSettings(),
        "cpu": UniADSettings(
            BackboneSettings(taps=(1, 2, 3, 4)),
            grid=16,
            width=128,
            heads=4,
            feedforward=256,
            layers=2,
            dropout=0.0,
            standardise=True,
            positions=True,
            epochs=12,
            draws=7200,
            batch_size=8,
            learning_rate=1e-3,
            clip=1.0,
        ),
        "tiny": UniADSettings(
            BackboneSettings(taps=(2, 3), size=64),
            grid=8,
            width=16,
            heads=2,
            layers=1,
            feedforward=32,
            window=3,
            dropout=0.0,
            pool=4,
            standardise=True,
            epochs=4,
            batch_size=4,
            learning_rate=1e-2,
            clip=1.0,
        ),
    }
    info = MethodInfo(
        title="UniAD",
        paper="You, Cui, Shen, Yang, Lu, Zheng, Le: A Unified Model for Multi-class Anomaly Detection",
        year=2022,
        venue="NeurIPS",
        family="feature reconstruction, transformer; one model for all classes",
        needs=("frozen backbone",),
        published={"MVTec AD, 15 classes, image AUROC": 96.5, "MVTec AD, 15 classes, pixel AUROC": 96.8},
    )
    settings: UniADSettings
    hidden: Tensor | None

    def __init__(self, settings: UniADSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s, channels, length = settings, self.channels, settings.grid**2
        self.register_buffer("hidden", neighbourhood(s.grid, s.window), persistent=False)
        self.enter, self.leave = nn.Linear(channels, s.width), nn.Linear(s.width, channels)
        layer = (s.width, s.heads, s.feedforward, s.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*layer) for _ in range(s.layers))
        self.decoder = nn.ModuleList(DecoderLayer(*layer) for _ in range(s.layers))
        self.norm = nn.LayerNorm(s.width)
        self.queries = nn.Parameter(torch.randn(s.layers, 1, length, s.width))
        self.rows = nn.Parameter(torch.rand(s.grid, s.width // 2))
        self.columns = nn.Parameter(torch.rand(s.grid, s.width // 2))
        initialise(self.learned())

    def learned(self) -> nn.ModuleList:
        return nn.ModuleList([self.enter, self.leave, self.encoder, self.decoder, self.norm])

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, table = self.settings, data.features(self.backbone)
        yield from self.statistics(table)
        yield Optimise(
            "transformer",
            table,
            self.loss,
            [*self.learned().parameters(), self.queries, self.rows, self.columns],
            partial(torch.optim.AdamW, lr=s.learning_rate, weight_decay=s.weight_decay),
            epochs=epochs_of(table, s.epochs, s.draws),
            batch_size=s.batch_size,
            schedule=lambda done: 1.0 if done < s.drop_at else 0.1,
            clip=s.clip,
        )
        yield from self.positions.phases(table, self.distance)

    def loss(self, features: list[Tensor]) -> Tensor:
        """Mean squared error between the clean features and what comes back from jittered ones."""
        clean = tokens(self.target(features))
        return (self.rebuild(self.jittered(clean)) - clean).square().mean()

    def jittered(self, rows: Tensor) -> Tensor:
        """Gaussian noise of deviation alpha * |token| / C (paper, section 3.4), while training."""
        scale = self.settings.jitter * rows.norm(dim=2, keepdim=True) / rows.shape[2]
        chosen = torch.rand(len(rows), 1, 1, device=rows.device) < self.settings.jitter_share
        return rows + torch.randn_like(rows) * scale * chosen

    def rebuild(self, rows: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        position = self._position()
        memory = self.enter(rows)
        for layer in self.encoder:
            memory = layer(memory, position, self.hidden)
        found = memory
        for layer, query in zip(self.decoder, self.queries, strict=True):
            # The output of the layer before enters as keys and values only: a residual would be the shortcut.
            target = query.expand(rows.shape[0], -1, -1) if self.settings.layer_queries else found
            found = layer(target, memory, found, position, self.hidden)
        return self.leave(self.norm(found))  # type: ignore[no-any-return]

    def _position(self) -> Tensor:
        g = self.settings.grid
        pair = self.columns[None].expand(g, -1, -1), self.rows[:, None].expand(-1, g, -1)
        return torch.cat(pair, 2).flatten(0, 1)
