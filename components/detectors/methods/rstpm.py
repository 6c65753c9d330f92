"""RSTPM: two teachers, a student beside the first and a decoder behind it (Yamada and Hotta, 2021, arXiv 2111.15376).

Pair 1 is plain feature imitation (STPM). In pair 2 a decoder rebuilds the pyramid of the second teacher, deep to
shallow, from the deepest features of the first, helped by a one-channel attention gate per scale. Six maps are fused.
Reconstructed from a complete public re-implementation: the decoder's blocks, the gates, the product over scales.
Ours (a setting each): the width of the decoder, the optimiser of the ``cpu`` preset.
Memory after fit: both teachers, the student and the decoder.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.backbones.extractor import Backbone, BackboneSettings
from components.backbones.networks import network
from components.core.errors import SettingsError
from components.detectors.contract import (
    BackboneDetector,
    Images,
    MethodInfo,
    Optimise,
    Phase,
    Scores,
    Together,
    TrainingData,
    epochs_of,
)
from components.detectors.parts.blocks import upsample
from components.detectors.parts.convolutions import Residual, convolution


@dataclass(frozen=True)
class RSTPMSettings:
    """Settings; the taps are those compared, shallow to deep, each at half the resolution of the one before."""

    backbone: BackboneSettings = BackboneSettings("resnet18", (1, 2, 3), 256)
    second: str = "resnet50"  # the other teacher; must differ
    code: int = 4  # the tap of the first teacher the decoder starts from
    width: float = 1.0  # of the decoder over the published one
    attention: bool = True  # the gates
    reconstruction: bool = True  # False: pair 2 is left out of the map, which leaves plain STPM
    epochs: int = 100
    draws: int = 0  # ours: at least so many images in all epochs, so that few images get more epochs
    batch_size: int = 32
    optimiser: Literal["sgd", "adam"] = "sgd"  # with momentum 0.9
    learning_rate: float = 0.4
    weight_decay: float = 1e-4
    clip: float | None = None

    def __post_init__(self) -> None:
        if self.second == self.backbone.name:
            raise SettingsError(f"second is {self.second} like the first teacher; name another network")


class Gate(nn.Sequential):
    """Spatial attention from a teacher's features: (B, C, h, w) -> (B, 1, h, w) in (0, 1).

    One channel: it can say where structure is, not what it looks like.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(*convolution(channels, channels), nn.Conv2d(channels, 1, 1), nn.Sigmoid())


class Rise(nn.Module):
    """Twice the resolution: transposed convolution, two residual blocks, projection to the teacher's channels."""

    def __init__(self, entering: int, width: int, channels: int) -> None:
        super().__init__()
        self.up = nn.Sequential(
            nn.ConvTranspose2d(entering, width, 3, 2, 1, output_padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.blocks = nn.Sequential(Residual(width), Residual(width))
        self.project = nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What goes on and what is compared."""
        x = self.blocks(self.up(x))
        return x, self.project(x)


class Decoder(nn.Module):
    """Student 2: from the code (B, C, h, w) up to every scale of teacher 2, deepest first."""

    def __init__(self, code: int, channels: tuple[int, ...], settings: RSTPMSettings) -> None:
        super().__init__()
        widths = [max(8, int(settings.width * c)) for c in channels]
        self.start = nn.Sequential(*convolution(code, widths[-1]), Residual(widths[-1]))
        entering = [widths[-1], *reversed(widths[1:])]
        self.rises = nn.ModuleList(Rise(*sizes) for sizes in zip(entering, widths[::-1], channels[::-1], strict=True))
        self.gates = nn.ModuleList(Gate(c) if settings.attention else nn.Identity() for c in channels[:0:-1])
        self.attention = settings.attention

    def forward(self, code: Tensor, teacher: list[Tensor]) -> list[Tensor]:
        """The rebuilt features in the order of *teacher*, shallow to deep."""
        x, found = self.start(code), []
        for i, rise in enumerate(self.rises):
            x, rebuilt = rise(x)
            found.append(rebuilt)
            if self.attention and i < len(self.gates):
                x = x + x * self.gates[i](teacher[len(teacher) - 1 - i])
        return found[::-1]


class RSTPM(BackboneDetector):
    """Map: product over scales of the summed distances of both pairs; image score: its maximum."""

    name = "rstpm"
    settings_type = RSTPMSettings
    presets = {
        "paper": RSTPMSettings(),
        "cpu": RSTPMSettings(
            BackboneSettings(taps=(1, 2, 3), size=128),
            "tf_efficientnet_lite1",
            width=0.25,
            epochs=8,
            draws=4800,
            batch_size=16,
            optimiser="adam",
            learning_rate=1e-3,
        ),
        "tiny": RSTPMSettings(
            BackboneSettings(taps=(1, 2, 3), size=64),
            "tf_efficientnet_lite1",
            width=0.25,
            epochs=2,
            batch_size=4,
            optimiser="adam",
            learning_rate=3e-3,
        ),
    }
    info = MethodInfo(
        title="RSTPM",
        paper="Yamada, Hotta: Reconstruction Student with Attention for Student-Teacher Pyramid Matching",
        year=2021,
        venue="arXiv 2111.15376",
        family="knowledge distillation",
        needs=("two frozen backbones",),
        reconstructed=("blocks of the decoder", "form of the gates", "fusion of the six maps", "optimiser"),
    )
    settings: RSTPMSettings

    def __init__(self, settings: RSTPMSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s = settings
        self.backbone = Backbone(replace(s.backbone, taps=(*s.backbone.taps, s.code)), pretrained)
        self.second = Backbone(replace(s.backbone, name=s.second), pretrained)
        self.student = network(s.backbone.name, features_only=True, out_indices=s.backbone.taps)
        self.decoder = Decoder(self.backbone.channels[-1], self.second.channels, s)

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, table = self.settings, self.inputs(data)
        optimiser = partial(torch.optim.SGD, momentum=0.9) if s.optimiser == "sgd" else torch.optim.Adam
        # The pairs share no weights, so that one phase over both losses is the same as two.
        yield Optimise(
            "students",
            table,
            self.loss,
            [p for p in self.parameters() if p.requires_grad],
            partial(optimiser, lr=s.learning_rate, weight_decay=s.weight_decay),
            epochs=epochs_of(table, s.epochs, s.draws),
            batch_size=s.batch_size,
            clip=s.clip,
        )

    def inputs(self, data: Images) -> Together:
        return Together(data.pixels(self.size), data.features(self.backbone), data.features(self.second))

    def prepare(self, pictures: Sequence[Tensor]) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        return pictures[0], self.backbone(pictures[0]), self.second(pictures[0])

    def pairs(self, inputs: tuple[Tensor, list[Tensor], list[Tensor]]) -> list[tuple[list[Tensor], list[Tensor]]]:
        """Per pair what the teacher says and what the student says, shallow to deep."""
        images, first, second = inputs
        imitated = list(self.student(self.backbone.normalise(images)))
        return [(first[:-1], imitated), (second, self.decoder(first[-1], second))]

    def loss(self, inputs: tuple[Tensor, list[Tensor], list[Tensor]]) -> Tensor:
        """Half the squared distance of normalised features, averaged over positions, summed over scales and pairs."""
        return torch.stack(
            [_apart(t, s).mean() for pair in self.pairs(inputs) for t, s in zip(*pair, strict=True)]
        ).sum()

    def maps(self, inputs: tuple[Tensor, list[Tensor], list[Tensor]]) -> list[list[Tensor]]:
        """1 - cosine per pair and scale: 2 x 3 maps (B, 1, h, w)."""
        return [[_apart(t, s) for t, s in zip(*pair, strict=True)] for pair in self.pairs(inputs)]

    def score(self, inputs: tuple[Tensor, list[Tensor], list[Tensor]], size: tuple[int, int]) -> Scores:
        maps = self.maps(inputs)
        used = maps if self.settings.reconstruction else maps[:1]
        scales = [torch.stack(scale).sum(0) for scale in zip(*used, strict=True)]
        own = _product(scales, (self.size, self.size))
        return Scores(own.flatten(1).max(1).values, _product(scales, size))


def _apart(teacher: Tensor, student: Tensor) -> Tensor:
    """1 - cosine over channels, which is half the squared distance of the normalised vectors: (B, 1, h, w)."""
    return 1 - F.cosine_similarity(teacher, student, dim=1)[:, None]


def _product(maps: list[Tensor], size: tuple[int, int]) -> Tensor:
    result = upsample(maps[0], size)
    for scale in maps[1:]:
        result = result * upsample(scale, size)
    return result
