"""PMB-AE: partition memory and error estimation (Xing and Li, 2022, arXiv 2209.12441, IEEE TCSVT 33(8), 2023).

A convolutional autoencoder whose lateral connections alternate between plain skips and partition memory: the map is cut
into P x P partitions and each can only be rebuilt from a small memory of its own. The difference image is cleaned by an
error level that is read off its own histogram.
Reconstructed: everything the abstract leaves open, which is the network, all sizes, the losses and the numbers.
Memory after fit: the weights and, per memory level, P * P * slots rows of query length.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import cos, pi
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.core.errors import SettingsError
from components.detectors.contract import (
    MethodInfo,
    OnePass,
    Optimise,
    Phase,
    PixelDetector,
    Scores,
    TrainingData,
    scratch,
)
from components.detectors.parts.blocks import GaussianBlur, Positions, largest, upsample
from components.detectors.parts.convolutions import Decoder, Encoder
from components.detectors.parts.light import relit
from components.detectors.parts.memory import Memory, entropy
from components.detectors.parts.similarity import structural_difference

Lateral = Literal["none", "skip", "memory"]


@dataclass(frozen=True)
class PMBAESettings:
    """Settings; *widths* and *laterals* go from the full resolution down, each level at half the side of the last."""

    size: int = 256
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)  # reconstructed
    laterals: tuple[Lateral, ...] = ("none", "skip", "memory", "skip", "memory")  # reconstructed: which level has which
    alternate: bool = True  # False: memory and skip need not take turns, for comparison
    parts: int = 4  # partitions per side; reconstructed
    slots: int = 64  # of each partition's memory; reconstructed
    query: Literal["channel", "pixel"] = "channel"  # reconstructed: a channel's response in a partition, or a position
    temperature: float = 0.1  # of the addressing; reconstructed
    shrink: float = 0.0  # weights below it become zero; reconstructed
    blend: bool = True  # reconstructed: a 1 x 1 convolution behind the read
    structure: float = 1.0  # weight of 1 - SSIM beside the squared error; reconstructed
    entropy: float = 2e-4  # weight of the entropy of the addressing; reconstructed
    epochs: int = 200  # reconstructed
    batch_size: int = 16
    learning_rate: float = 2e-4  # reconstructed
    share: float = 0.9  # of the pixels that are nuisance: the histogram's level is read there; reconstructed
    ceiling: float = 1.5  # the level is capped at this times its mean on the normals, for their median; reconstructed
    brightness: bool = False  # ours: gain and offset of what is rebuilt are fitted to each image
    standardise: bool = False  # ours: each position of the map by its mean and deviation on the normals
    blur: float = 4.0  # sigma, pixels of the working size; reconstructed
    top: float = 0.005  # share of the map whose mean is the image score; reconstructed

    def __post_init__(self) -> None:
        used = [lateral for lateral in self.laterals if lateral != "none"]
        if len(self.laterals) != len(self.widths) or used[-1:] != ["memory"] or self.laterals[-1] != "memory":
            raise SettingsError(f"laterals {self.laterals}: one per width, and memory at the last")
        if self.alternate and (len(used) < 2 or any(a == b for a, b in pairwise(used))):
            raise SettingsError(f"laterals {self.laterals}: memory and skip must take turns")
        sides = [self.size >> i for i, lateral in enumerate(self.laterals) if lateral == "memory"]
        if any(side % self.parts or side < 2 * self.parts for side in sides):
            raise SettingsError(f"parts is {self.parts}: maps of side {sides} need partitions of at least 2 x 2")


class PartitionMemory(nn.Module):
    """Maps (B, C, h, w) in P x P partitions, each rebuilt from its own memory alone.

    ``forward`` returns the rebuilt maps and the address weights (P * P, N, slots). Nothing bypasses the read.
    """

    def __init__(self, channels: int, side: int, settings: PMBAESettings) -> None:
        super().__init__()
        s = settings
        self.parts, self.query = s.parts, s.query
        width = (side // s.parts) ** 2 if s.query == "channel" else channels
        self.memory = Memory(s.slots, width, s.parts**2, s.temperature, s.shrink)
        self.blend = nn.Conv2d(channels, channels, 1) if s.blend else nn.Identity()

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        rows, weights = self.memory(self.queries(maps))
        return self.blend(self.joined(rows, maps)), weights

    def queries(self, maps: Tensor) -> Tensor:
        """(B, C, h, w) -> (P * P, N, D): per channel the layout in the partition, or per position all channels."""
        p, (channels, side) = self.parts, (maps.shape[1], maps.shape[2] // self.parts)
        cells = maps.reshape(-1, channels, p, side, p, side)
        if self.query == "channel":
            return cells.permute(2, 4, 0, 1, 3, 5).reshape(p * p, -1, side * side)
        return cells.permute(2, 4, 0, 3, 5, 1).reshape(p * p, -1, channels)

    def joined(self, rows: Tensor, like: Tensor) -> Tensor:
        """The inverse of ``queries``, in the shape of *like*."""
        p, (channels, side) = self.parts, (like.shape[1], like.shape[2] // self.parts)
        if self.query == "channel":
            cells = rows.reshape(p, p, -1, channels, side, side).permute(2, 3, 0, 4, 1, 5)
        else:
            cells = rows.reshape(p, p, -1, side, side, channels).permute(2, 5, 0, 3, 1, 4)
        return cells.reshape(-1, channels, p * side, p * side)


class ErrorEstimate(nn.Module):
    """Histogram error estimation: the level most of an image's own differences stay below is taken off, down to zero.

    The level is where the cumulative histogram of the difference image reaches *share*, with the finest bins there are
    (one per value). It is capped, so that a large defect does not hide itself: for an image whose median is that of the
    normals at *ceiling* times their mean level, and with the image's own median the cap rises and falls. What lifts the
    whole difference image, as other light does, is nuisance and taken off; a defect of up to half of the image does
    not move its median.
    """

    room: Tensor
    sums: Tensor

    def __init__(self, pixels: int, share: float, ceiling: float) -> None:
        super().__init__()
        self.above, self.middle, self.ceiling = max(1, round((1 - share) * pixels)), pixels // 2 + 1, ceiling
        self.register_buffer("room", torch.full((), torch.inf))  # of the level above the image's median
        scratch(self, "sums", torch.zeros(3, dtype=torch.float64))

    def level(self, differences: Tensor) -> Tensor:
        """(B, 1, H, W) -> (B, 1, 1, 1), without the cap."""
        return self._ranked(differences)[0]

    def _ranked(self, differences: Tensor) -> tuple[Tensor, Tensor]:
        """Level and median of each image, (B, 1, 1, 1) each."""
        largest = differences.flatten(1).topk(max(self.above, self.middle)).values
        return largest[:, self.above - 1].view(-1, 1, 1, 1), largest[:, self.middle - 1].view(-1, 1, 1, 1)

    def forward(self, differences: Tensor) -> Tensor:
        level, median = self._ranked(differences)
        return F.relu(differences - level.minimum(median + self.room))

    def add(self, differences: Tensor) -> None:
        level, median = (values.double().sum() for values in self._ranked(differences))
        self.sums += torch.stack([torch.full_like(level, len(differences)), level, median])

    def finish(self) -> None:
        count, level, median = self.sums
        self.room.copy_((self.ceiling * level - median) / count)


class PMBAE(PixelDetector):
    """Map: what the difference image exceeds its error level by, blurred; image score: the mean of its largest."""

    name = "pmb_ae"
    settings_type = PMBAESettings
    presets = {
        "paper": PMBAESettings(),
        # Without the skip at half the resolution, through which small anomalies are copied.
        "cpu": PMBAESettings(
            size=128,
            widths=(8, 16, 32, 64, 64),
            laterals=("none", "none", "memory", "skip", "memory"),
            parts=2,
            epochs=12,
            batch_size=8,
            learning_rate=2e-3,
            standardise=True,
            blur=2.0,
        ),
        "tiny": PMBAESettings(
            size=64,
            widths=(8, 16, 16),
            laterals=("none", "skip", "memory"),
            slots=16,
            epochs=4,
            batch_size=4,
            learning_rate=5e-3,
            standardise=True,
            blur=1.0,
        ),
    }
    info = MethodInfo(
        title="PMB-AE",
        paper="Xing, Li: Visual Anomaly Detection Via Partition Memory Bank Module and Error Estimation",
        year=2022,
        venue="IEEE TCSVT 33(8), 2023; arXiv 2209.12441",
        family="pixel reconstruction with memory",
        needs=("normal images only", "a fixed input size"),
        reconstructed=(
            "network",
            "query",
            "addressing",
            "losses",
            "error level",
            "image score",
            "light fitted to each image",
            "all numbers",
        ),
    )
    settings: PMBAESettings

    def __init__(self, settings: PMBAESettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s = settings
        self.encoder = Encoder(3, s.widths)
        levels = zip(s.widths, s.laterals, strict=True)
        self.memories = nn.ModuleDict(
            {str(i): PartitionMemory(w, s.size >> i, s) for i, (w, lateral) in enumerate(levels) if lateral == "memory"}
        )
        upward = [0 if lateral == "none" else w for w, lateral in zip(s.widths, s.laterals, strict=True)][-2::-1]
        self.decoder = Decoder(s.widths[::-1], upward)
        self.head = nn.Conv2d(s.widths[0], 3, 3, padding=1)
        self.estimate = ErrorEstimate(s.size**2, s.share, s.ceiling)
        self.positions = Positions(s.size**2, s.standardise)
        self.blur = GaussianBlur(s.blur)

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, table = self.settings, data.pixels(self.size)
        yield Optimise(
            "reconstruction",
            table,
            self.loss,
            list(self.parameters()),
            partial(torch.optim.Adam, lr=s.learning_rate),
            epochs=s.epochs,
            batch_size=s.batch_size,
            schedule=_falling,
            select=not s.standardise,  # the standardised map, which would choose, is there only behind its phase
        )
        yield OnePass("error level", table, self._add_level, self.estimate.finish, sums=True)
        yield from self.positions.phases(table, self.errors)

    def rebuild(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Images (B, 3, size, size) as the memories know them, and the address weights of each memory level."""
        laterals: list[Tensor | None] = []
        weights: list[Tensor] = []
        for i, found in enumerate(self.encoder(images)):
            if self.settings.laterals[i] == "memory":
                read, weight = self.memories[str(i)](found)
                weights.append(weight)
                laterals.append(read)
            else:
                laterals.append(found if self.settings.laterals[i] == "skip" else None)
        *finer, deepest = laterals
        assert deepest is not None  # the last level is a memory
        return self.head(self.decoder(deepest, finer[::-1])[-1]).sigmoid(), weights

    def loss(self, images: Tensor) -> Tensor:
        """Squared error, 1 - SSIM and the entropy of the addressing, which keeps it to few slots."""
        s = self.settings
        rebuilt, weights = self.rebuild(images)
        structure = structural_difference(rebuilt, images).mean()
        spread = torch.stack([entropy(w) for w in weights]).mean()
        return F.mse_loss(rebuilt, images) + s.structure * structure + s.entropy * spread

    def difference(self, images: Tensor) -> Tensor:
        """The difference image, averaged over the colours: (B, 1, size, size) in [0, 1]."""
        rebuilt = self.rebuild(images)[0]
        if self.settings.brightness:
            rebuilt = relit(rebuilt, images)
        return (images - rebuilt).abs().mean(1, keepdim=True)

    def errors(self, images: Tensor) -> Tensor:
        """Differences above the image's error level, blurred: (B, 1, size, size)."""
        return self.blur(self.estimate(self.difference(images)))  # type: ignore[no-any-return]

    def _add_level(self, images: Tensor) -> None:
        self.estimate.add(self.difference(images))

    def score(self, inputs: Tensor, size: tuple[int, int]) -> Scores:
        own = self.positions(self.errors(inputs))
        return Scores(largest(own, self.settings.top), upsample(own, size))


def _falling(done: float) -> float:
    """Half a cosine, from 1 to 0: with no epoch chosen, the last is the best settled one."""
    return 0.5 + 0.5 * cos(pi * done)
