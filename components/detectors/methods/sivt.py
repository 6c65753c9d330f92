"""SIVT: every position is induced from the others only (Yao and Wang, 2022, arXiv 2211.12311).

The tokens are split into subsets; in one sequence per subset these tokens are replaced by auxiliary (induction)
tokens, a shared encoder fills them in, and a decoder that sees nothing else rebuilds the frozen features.
Details are of the journal version by the same authors (PSA-VT, IEEE TIM 2024), which states the same mechanism.
Reconstructed: the subsets at inference (fixed by the seed), auxiliary tokens learned per position.
Memory after fit: the transformer's weights, 14.6 million in the ``paper`` preset.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.backbones.extractor import BackboneSettings
from components.core.errors import SettingsError
from components.detectors.contract import MethodInfo, Optimise, Phase, Scores, TrainingData, epochs_of
from components.detectors.parts.blocks import GaussianBlur, Positions, upsample
from components.detectors.parts.transformers import PreNormLayer, Rebuilder, initialise, waves


@dataclass(frozen=True)
class SIVTSettings:
    """Settings; *subsets* is N of the paper (1: nothing is induced, a plain transformer)."""

    backbone: BackboneSettings = BackboneSettings("tf_efficientnet_b4", (0, 1, 2, 3), 256)
    grid: int = 32
    patch: int = 2  # side of the squares of the grid that make one token
    width: int = 240
    encoder_layers: int = 12
    encoder_heads: int = 12
    decoder_layers: int = 8
    decoder_heads: int = 16
    subsets: int = 4
    partition: Literal["random", "checkerboard"] = (
        "random"  # drawn anew in every training step, fixed at inference; or checkerboard
    )
    positioned: bool = True  # False: one auxiliary token for all positions, as in the released code
    direction: float = 5.0  # lambda, the weight of the cosine term of the loss
    blur: float = 4.0
    deviation: bool = True  # image score: the map's standard deviation (paper); False: its maximum
    standardise: bool = False  # ours: channels to mean 0, deviation 1 on the fit normals
    positions: bool = False  # ours: each position of the map by its mean and deviation on the fit normals
    epochs: int = 400
    draws: int = 0  # ours: at least so many images in all epochs, so that few images get more epochs
    batch_size: int = 8
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    drop_at: float = 0.75

    def __post_init__(self) -> None:
        if self.partition == "checkerboard" and self.subsets not in (1, 4):
            raise SettingsError("a checkerboard has 4 subsets; set subsets to 4 or partition to random")


class SIVT(Rebuilder):
    """Map: product of the blurred distance and direction residuals; image score: its standard deviation."""

    name = "sivt"
    settings_type = SIVTSettings
    presets = {
        "paper": SIVTSettings(),
        "cpu": SIVTSettings(
            BackboneSettings(taps=(0, 1, 2, 3)),
            width=64,
            encoder_layers=2,
            encoder_heads=4,
            decoder_layers=2,
            decoder_heads=4,
            deviation=False,
            standardise=True,
            positions=True,
            epochs=10,
            draws=6000,
            batch_size=16,
            learning_rate=1e-3,
        ),
        "tiny": SIVTSettings(
            BackboneSettings(taps=(2, 3), size=64),
            grid=8,
            patch=1,
            width=16,
            encoder_layers=1,
            encoder_heads=2,
            decoder_layers=1,
            decoder_heads=2,
            blur=1.0,
            standardise=True,
            epochs=4,
            batch_size=4,
            learning_rate=1e-2,
        ),
    }
    info = MethodInfo(
        title="SIVT",
        paper="Yao, Wang: Generalizable Industrial Visual Anomaly Detection with Self-Induction Vision Transformer",
        year=2022,
        venue="arXiv 2211.12311",
        family="feature reconstruction, transformer; one model for all classes",
        needs=("frozen backbone",),
        reconstructed=("subsets at inference: fixed", "auxiliary tokens: learned per position"),
        published={
            "MVTec AD, 15 classes, image AUROC (PSA-VT, journal version)": 96.4,
            "MVTec AD, 15 classes, pixel AUROC (PSA-VT, journal version)": 96.9,
            "MVTec AD, 15 classes, pixel AP (PSA-VT, journal version)": 50.9,
        },
    )
    settings: SIVTSettings
    subsets: Tensor
    position: Tensor

    def __init__(self, settings: SIVTSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s, channels, side = settings, self.channels, settings.grid // settings.patch
        self.blur = GaussianBlur(s.blur)
        self.positions = Positions(self.size**2, s.positions)
        self.embed = nn.Conv2d(channels, s.width, s.patch, s.patch)
        self.auxiliary = nn.Parameter(0.02 * torch.randn(1, side**2 if s.positioned else 1, s.width))
        self.encoder = nn.Sequential(
            *(PreNormLayer(s.width, s.encoder_heads) for _ in range(s.encoder_layers)), nn.LayerNorm(s.width)
        )
        self.bridge = nn.Linear(s.width, s.width)
        self.decoder = nn.Sequential(
            *(PreNormLayer(s.width, s.decoder_heads) for _ in range(s.decoder_layers)), nn.LayerNorm(s.width)
        )
        self.leave = nn.Linear(s.width, s.patch**2 * channels)
        for part in (self.embed, self.encoder, self.bridge, self.decoder, self.leave):
            initialise(part)
        self.register_buffer("position", waves(side, s.width), persistent=False)
        self.register_buffer("subsets", self._checkerboard(side) if s.partition == "checkerboard" else self._drawn())

    def _checkerboard(self, side: int) -> Tensor:
        row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        number = (row % 2 * 2 + column % 2).flatten() % self.settings.subsets
        return F.one_hot(number, self.settings.subsets).T.float()

    def _drawn(self) -> Tensor:
        """Disjoint subsets of equal size, (N, L): 1 where a position belongs to the subset."""
        length = len(self.position)
        number = torch.empty(length, dtype=torch.int64)
        number[torch.randperm(length)] = torch.arange(length) % self.settings.subsets
        return F.one_hot(number, self.settings.subsets).T.float().to(self.position.device)

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, table = self.settings, data.features(self.backbone)
        yield from self.statistics(table)
        yield Optimise(
            "transformer",
            table,
            self.loss,
            [p for p in self.parameters() if p.requires_grad],
            partial(torch.optim.AdamW, lr=s.learning_rate, betas=(0.9, 0.95), weight_decay=s.weight_decay),
            epochs=epochs_of(table, s.epochs, s.draws),
            batch_size=s.batch_size,
            schedule=lambda done: 1.0 if done < s.drop_at else 0.1,
        )
        yield from self.positions.phases(table, self.product)

    def loss(self, features: list[Tensor]) -> Tensor:
        """Per token: mean squared error and lambda * (1 - cosine), over the patch vector."""
        target = self.target(features)
        drawn = self._drawn() if self.settings.partition == "random" else self.subsets
        want, got = self._patches(target), self._patches(self.rebuild(target, drawn))
        apart = 1 - F.cosine_similarity(want, got, dim=2)
        return ((want - got).square().mean(2) + self.settings.direction * apart).mean()

    def _patches(self, maps: Tensor) -> Tensor:
        """(B, C, grid, grid) -> (B, L, C * patch * patch)."""
        p = self.settings.patch
        return F.pixel_unshuffle(maps, p).flatten(2).transpose(1, 2)

    def induced(self, target: Tensor, subsets: Tensor) -> Tensor:
        """The latent (B, L, D) that knows a position only by the others; *subsets* (N, L)."""
        rows = self.embed(target).flatten(2).transpose(1, 2) + self.position
        auxiliary = self.auxiliary + self.position if self.settings.positioned else self.auxiliary
        if len(subsets) == 1:
            return self.encoder(rows)  # type: ignore[no-any-return]
        taken = subsets[None, :, :, None]  # (1, N, L, 1)
        sequences = rows[:, None] * (1 - taken) + auxiliary[:, None] * taken
        found = self.encoder(sequences.flatten(0, 1)).unflatten(0, (-1, len(subsets)))
        return (found * taken).sum(1)  # type: ignore[no-any-return]

    def rebuild(self, target: Tensor, subsets: Tensor) -> Tensor:
        """(B, C, grid, grid) -> the same shape."""
        latent = self.bridge(self.induced(target, subsets)) + self.position
        found, p = self.leave(self.decoder(latent)), self.settings.patch
        side = self.settings.grid // p
        return F.pixel_shuffle(found.transpose(1, 2).unflatten(2, (side, side)), p)

    def product(self, features: list[Tensor]) -> Tensor:
        """The blurred distance times the blurred direction residual, (B, 1, size, size)."""
        target = self.target(features)
        found = self.rebuild(target, self.subsets)
        distance = (target - found).square().mean(1, keepdim=True)
        direction = 1 - F.cosine_similarity(target, found, dim=1)[:, None]
        size = (self.size, self.size)
        blurred = [self.blur(m, size, corners=True) for m in (distance, direction)]
        return blurred[0] * blurred[1]

    def score(self, features: list[Tensor], size: tuple[int, int]) -> Scores:
        own = self.positions(self.product(features))
        flat = own.flatten(1)
        image = (flat - flat.mean(1, keepdim=True)).square().mean(1).sqrt()
        return Scores(image if self.settings.deviation else flat.max(1).values, upsample(own, size))
