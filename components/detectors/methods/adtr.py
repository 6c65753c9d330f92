"""ADTR: a transformer with auxiliary queries rebuilds frozen features (You et al., 2022, arXiv 2209.01816).

With ``push_epochs`` a second phase follows (ADTR+): synthetic confetti anomalies push the reconstruction of what is
anomalous away. Reconstructed where the paper is silent: the pooling of the image score, the rate of the second phase.
Memory after fit: the transformer's weights, 8.1 million in the ``paper`` preset.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from components.backbones.extractor import BackboneSettings
from components.detectors.contract import MethodInfo, Optimise, Phase, Together, TrainingData, epochs_of
from components.detectors.parts.transformers import DecoderLayer, EncoderLayer, TokenRebuilder, initialise


@dataclass(frozen=True)
class ADTRSettings:
    """Settings; *push* is alpha of the paper's eqs. 6 and 8."""

    backbone: BackboneSettings = BackboneSettings("tf_efficientnet_b4", (0, 1, 2, 3, 4), 256)
    grid: int = 16  # 16 in the paper's text, 32 in its appendix
    width: int = 256
    heads: int = 8
    layers: int = 4
    feedforward: int = 1024
    dropout: float = 0.1
    queries: bool = True  # False: the decoder starts from the encoder's input, without auxiliary queries
    pool: int = 16  # reconstructed: not stated; as in the same authors' UniAD
    standardise: bool = False  # ours: channels to mean 0, deviation 1 on the fit normals
    positions: bool = False  # ours: each position of the map by its mean and deviation on the fit normals
    epochs: int = 500
    draws: int = 0  # ours: at least so many images in all epochs, so that few images get more epochs
    batch_size: int = 16
    learning_rate: float = 1e-4
    weight_decay: float = 1e-4
    push_epochs: int = 300  # ADTR+; 0: normal images only
    push_loss: Literal["pixel", "image"] = "pixel"
    push: float = 0.003
    push_rate: float = 1e-4  # reconstructed: not stated
    most: int = 20  # positions whose mean stands for an image in the image loss


class ADTR(TokenRebuilder):
    """Map: distance of features and their reconstruction, upsampled; image score: the largest local mean of it."""

    name = "adtr"
    settings_type = ADTRSettings
    presets = {
        "paper": ADTRSettings(),
        "cpu": ADTRSettings(
            BackboneSettings(taps=(0, 1, 2, 3, 4)),
            width=128,
            heads=4,
            layers=2,
            feedforward=256,
            dropout=0.0,
            standardise=True,
            positions=True,
            epochs=7,
            draws=4200,
            batch_size=8,
            learning_rate=1e-3,
            push_epochs=2,
        ),
        "tiny": ADTRSettings(
            BackboneSettings(taps=(2, 3), size=64),
            grid=8,
            width=16,
            heads=2,
            layers=1,
            feedforward=32,
            dropout=0.0,
            pool=4,
            standardise=True,
            epochs=4,
            batch_size=4,
            learning_rate=1e-2,
            push_epochs=1,
        ),
    }
    info = MethodInfo(
        title="ADTR",
        paper="You, Yang, Luo, Cui, Zheng, Le: ADTR: Anomaly Detection Transformer with Feature Reconstruction",
        year=2022,
        venue="ICONIP; arXiv 2209.01816",
        family="feature reconstruction, transformer",
        needs=("frozen backbone", "synthetic anomalies for the second stage"),
        reconstructed=("pooling of the image score", "learning rate of the second stage"),
        published={
            "MVTec AD image AUROC (ADTR)": 96.4,
            "MVTec AD image AUROC (ADTR+)": 96.9,
            "MVTec AD pixel AUROC (ADTR)": 97.2,
            "MVTec AD pixel AUROC (ADTR+)": 97.5,
        },
    )
    settings: ADTRSettings

    def __init__(self, settings: ADTRSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s, channels, length = settings, self.channels, settings.grid**2
        self.enter, self.leave = nn.Linear(channels, s.width), nn.Linear(s.width, channels)
        layer = (s.width, s.heads, s.feedforward, s.dropout)
        self.encoder = nn.ModuleList(EncoderLayer(*layer) for _ in range(s.layers))
        self.decoder = nn.ModuleList(DecoderLayer(*layer) for _ in range(s.layers))
        self.queries = nn.Parameter(torch.randn(1, length, s.width))
        self.position = nn.Parameter(0.02 * torch.randn(1, length, s.width))
        for part in (self.enter, self.leave, self.encoder, self.decoder):
            initialise(part)

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, table = self.settings, data.features(self.backbone)
        yield from self.statistics(table)
        adamw = partial(torch.optim.AdamW, weight_decay=s.weight_decay)
        learned = [p for p in self.parameters() if p.requires_grad]
        yield Optimise(
            "reconstruction",
            table,
            self.normal_loss,
            learned,
            partial(adamw, lr=s.learning_rate),
            epochs_of(table, s.epochs, s.draws),
            s.batch_size,
            schedule=_drop,
        )
        if s.push_epochs:
            pool = data.anomalies(("confetti",), self.size)
            both = Together(self.inputs(pool), pool.masks(s.grid))
            yield Optimise(
                "push-pull",
                both,
                self.apart_loss,
                learned,
                partial(adamw, lr=s.push_rate),
                s.push_epochs,
                s.batch_size,
                schedule=_drop,
            )
        yield from self.positions.phases(table, self.distance)

    def rebuild(self, rows: Tensor) -> Tensor:
        """(B, L, C) -> (B, L, C)."""
        memory = entered = self.enter(rows)
        for layer in self.encoder:
            memory = layer(memory, self.position)
        found = self.queries.expand(rows.shape[0], -1, -1) if self.settings.queries else entered
        for layer in self.decoder:
            found = layer(found, None, memory, self.position)
        return self.leave(found)  # type: ignore[no-any-return]

    def normal_loss(self, features: list[Tensor]) -> Tensor:
        """Squared distance per position, averaged over positions and batch."""
        return self.difference(features).square().sum(2).mean()

    def apart_loss(self, batch: tuple[list[Tensor], Tensor]) -> Tensor:
        """The paper's push-pull loss; masks (B, 1, grid, grid)."""
        features, masks = batch
        return push_pull(pseudo_huber(self.difference(features)), masks.flatten(1), self.settings)


def pseudo_huber(difference: Tensor) -> Tensor:
    """sqrt(mean|d|^2 + 1) - 1 per position; (B, L, C) -> (B, L)."""
    return (difference.abs().mean(2).square() + 1).sqrt() - 1


def push_pull(distance: Tensor, labels: Tensor, settings: ADTRSettings) -> Tensor:
    """Pull what is normal together, push what is anomalous apart; distance and labels (B, L).

    Pixel form: sums over normal and anomalous positions; image form: the mean of the ``most`` largest distances.
    """
    if settings.push_loss == "pixel":
        pulled = (distance * (1 - labels)).mean(1)
        pushed, anomalous = (distance * labels).mean(1), labels.amax(1)
    else:
        pushed = distance.topk(min(settings.most, distance.shape[1]), dim=1).values.mean(1)
        anomalous = labels.amax(1)
        pulled = pushed * (1 - anomalous)
    # log(1 - exp(-x)) by expm1: x is near zero at the start. Images without an anomaly have no second term.
    apart = -torch.log(-torch.expm1(-pushed.clamp_min(1e-6)))
    return (pulled + settings.push * anomalous * apart).mean()


def _drop(done: float) -> float:
    return 1.0 if done < 0.8 else 0.1
