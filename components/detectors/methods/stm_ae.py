"""STM-AE: spatio-temporal memory autoencoder for video (Hu and Zhu, 2022, arXiv 2211.10052).

An autoencoder predicts the next frame of a clip from the frames before it. Residual temporal shift lets frames know of
each other, residual channel attention weighs what they hold, and a memory of normal patterns stands on every way from
the encoder to the decoder, also on the skips, so that what is not normal cannot get round the memories. A loss keeps
the patterns of a memory apart. The difference between predicted and true frame is the map.
Reconstructed: all that the abstracts leave open, which is the network, the losses, the score and the numbers.
Memory after fit: the weights and the slots. Nothing is written to the memories while frames are scored: a score is a
matter of its window alone, in whatever order windows come.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import cos, pi
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.core.errors import SettingsError
from components.detectors.contract import (
    ClipDetector,
    MethodInfo,
    OnePass,
    Optimise,
    Phase,
    Scores,
    TrainingData,
)
from components.detectors.parts.blocks import Positions, box_mean, in_proportion, upsample
from components.detectors.parts.clips import FAINT, Base, Contrast, moving, spread
from components.detectors.parts.convolutions import Twice
from components.detectors.parts.memory import Memory, as_maps, as_queries

BOX = 17  # pixels at 256: about a person of the sets


@dataclass(frozen=True)
class STMAESettings:
    """Settings; *widths* go down, each level at half the side of the one before."""

    size: int = 256
    past: int = 4  # frames that the next one is predicted from
    stem: int = 1  # side of the blocks of pixels that the network takes as one; reconstructed
    widths: tuple[int, ...] = (64, 128, 256, 512)  # reconstructed
    shift: Literal["both", "past", "none"] = "both"  # where shifted channels come from; reconstructed
    shifted: float = 0.125  # share of the channels that comes from a neighbour in time; reconstructed
    attention: bool = True
    reduction: int = 16  # of the channels inside the attention; reconstructed
    memories: Literal["all", "deepest", "none"] = "all"  # which ways to the decoder lead through a memory
    slots: tuple[int, ...] = (64, 64, 64, 20)  # of the memory of each level, finest first; reconstructed
    temperature: float = 0.1  # of the addressing; reconstructed
    shrink: float = 0.0  # address weights below it become zero; reconstructed
    gradient: float = 1.0  # weight of the difference of image gradients; reconstructed
    compactness: float = 0.1  # weight of the distance of a query to its nearest slot; reconstructed
    discreteness: float = 0.1  # weight of what keeps slots apart; its formula is reconstructed
    margin: float = 0.0  # cosine up to which slots may be alike; reconstructed
    box: int | None = None  # side in pixels over which errors are averaged; None: 17 at 256; reconstructed
    image: Literal["peak", "frame"] = "peak"  # worst box, or the frame's mean as in PSNR, is the score; reconstructed
    base: Literal["none", "background", "last"] = "none"  # ours: what the predicted frame is told from
    standardise: Literal["none", "position", "contrast"] = "none"  # ours: by position, if better so, or by contrast
    crop: int = 0  # ours: side of the squares that are learned from, drawn where things move; 0: whole frames
    crops: int = 2  # ours: of these squares from each clip
    most: int = 0  # ours: clips that are learned from, spread evenly; 0: all
    epochs: int = 60  # reconstructed
    batch_size: int = 4  # reconstructed
    learning_rate: float = 2e-4  # falls by a cosine to nothing; reconstructed

    def __post_init__(self) -> None:
        if len(self.slots) != len(self.widths):
            raise SettingsError(
                f"slots are given for {len(self.slots)} of {len(self.widths)} levels; give one for each"
            )
        unit = self.stem * 2 ** (len(self.widths) - 1)
        if self.past < 1:
            raise SettingsError(f"past is {self.past}; a frame is predicted from 1 at least")
        if self.size % unit or self.crop % unit or self.crop > self.size:
            raise SettingsError(
                f"size {self.size} and crop {self.crop} must be multiples of {unit}, the crop no larger than the frame"
            )


class TemporalShift(nn.Module):
    """x + convolutions of x, part of whose channels come from the frames beside: (B * T, C, h, w) -> the same.

    Inside the residual branch, so that no frame loses what it is itself (Lin et al., ICCV 2019). Nothing comes in at
    the ends of a clip.
    """

    def __init__(self, width: int, settings: STMAESettings) -> None:
        super().__init__()
        self.times, self.mode = settings.past, settings.shift
        self.fold = max(1, round(width * settings.shifted))
        self.branch = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(self.shifted(x))

    def shifted(self, x: Tensor) -> Tensor:
        """(B * T, C, h, w): the first channels are those of the frame before, the next ones of the frame behind."""
        if self.mode == "none":
            return x
        clips, fold = x.unflatten(0, (-1, self.times)), self.fold
        parts, start = [_later(clips[:, :, :fold])], fold
        if self.mode == "both":
            parts, start = [*parts, _earlier(clips[:, :, fold : 2 * fold])], 2 * fold
        return torch.cat([*parts, clips[:, :, start:]], 2).flatten(0, 1)


def _later(clips: Tensor) -> Tensor:
    """(B, T, ...): each time holds what the one before held, the first one nothing."""
    return torch.cat([torch.zeros_like(clips[:, :1]), clips[:, :-1]], 1)


def _earlier(clips: Tensor) -> Tensor:
    return torch.cat([clips[:, 1:], torch.zeros_like(clips[:, :1])], 1)


class ChannelAttention(nn.Module):
    """x + convolutions of x, each channel weighed by what all hold on average: (N, C, h, w) -> the same.

    The block of RCAN (Zhang et al., ECCV 2018).
    """

    def __init__(self, width: int, settings: STMAESettings) -> None:
        super().__init__()
        inner = max(2, width // settings.reduction)
        self.branch = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.weigh = nn.Sequential(nn.Conv2d(width, inner, 1), nn.ReLU(), nn.Conv2d(inner, width, 1), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        found = self.branch(x)
        return x + found * self.weigh(found.mean((2, 3), keepdim=True))


class Level(nn.Module):
    """One level of the encoder, frame by frame but for the shift: (B * T, C, h, w) -> (B * T, width, h, w)."""

    def __init__(self, entering: int, width: int, settings: STMAESettings) -> None:
        super().__init__()
        self.convolutions = Twice(entering, width)
        self.shift = TemporalShift(width, settings)
        self.attention = ChannelAttention(width, settings) if settings.attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.attention(self.shift(self.convolutions(x)))
        return found


class Passage(nn.Module):
    """A way from the encoder to the decoder: the frames of a clip as one map, and what a memory makes of it.

    (B * T, C, h, w) -> (B, C, h, w) and the cosines of its queries with the slots (1, N, slots), None without a memory.
    Only what the memory holds is handed on: the query itself beside it would open the way past the memory again.
    """

    def __init__(self, width: int, slots: int, settings: STMAESettings, remembers: bool) -> None:
        super().__init__()
        self.times = settings.past
        self.together = nn.Conv2d(width * settings.past, width, 1)
        self.memory = Memory(slots, width, 1, settings.temperature, settings.shrink) if remembers else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        joined = self.together(x.unflatten(0, (-1, self.times)).flatten(1, 2))
        if self.memory is None:
            return joined, None
        queries = as_queries(joined)
        return as_maps(self.memory(queries)[0], joined), self.memory.cosine(queries)


class Up(nn.Module):
    """One level of the decoder: twice the side, what comes over the skip, convolutions, attention."""

    def __init__(self, entering: int, width: int, settings: STMAESettings) -> None:
        super().__init__()
        self.enlarge = nn.ConvTranspose2d(entering, width, 2, 2)
        self.convolutions = Twice(2 * width, width)
        self.attention = ChannelAttention(width, settings) if settings.attention else nn.Identity()

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        found: Tensor = self.attention(self.convolutions(torch.cat([self.enlarge(x), skip], 1)))
        return found


class Predictor(nn.Module):
    """Clips (B, T, 3, H, W), about -1 to 1 -> the frame that follows likewise, and the cosines of each memory."""

    def __init__(self, settings: STMAESettings) -> None:
        super().__init__()
        widths, stem = settings.widths, settings.stem
        entering = 3 * stem**2
        self.levels = nn.ModuleList(Level(a, b, settings) for a, b in zip((entering, *widths), widths, strict=False))
        last = len(widths) - 1
        remembers = [
            settings.memories == "all" or (settings.memories == "deepest" and i == last) for i in range(last + 1)
        ]
        self.passages = nn.ModuleList(
            Passage(w, n, settings, r) for w, n, r in zip(widths, settings.slots, remembers, strict=True)
        )
        self.ups = nn.ModuleList(Up(widths[i + 1], widths[i], settings) for i in reversed(range(last)))
        self.head = nn.Conv2d(widths[0], entering, 3, padding=1)
        if settings.base != "none":  # training begins with the base itself as the prediction
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        self.take, self.give = nn.PixelUnshuffle(stem), nn.PixelShuffle(stem)

    def forward(self, clips: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, found = self.take(clips.flatten(0, 1)), []
        for number, level in enumerate(self.levels):
            x = level(F.max_pool2d(x, 2) if number else x)
            found.append(x)
        passed = [passage(x) for passage, x in zip(self.passages, found, strict=True)]
        up = passed[-1][0]
        for step, (skip, _) in zip(self.ups, reversed(passed[:-1]), strict=True):
            up = step(up, skip)
        return self.give(self.head(up)).tanh(), [cosine for _, cosine in passed if cosine is not None]

    @property
    def memories(self) -> list[Memory]:
        """Finest first."""
        return [passage.memory for passage in self.passages if passage.memory is not None]  # type: ignore[misc]


class STMAE(ClipDetector):
    """Map: squared error of the predicted frame, averaged over boxes. Score: that of the worst box in decibels."""

    name = "stm_ae"
    settings_type = STMAESettings
    presets = {
        "paper": STMAESettings(),
        "long": STMAESettings(size=128, stem=2, widths=(32, 64, 128), slots=(64, 64, 64), epochs=30, batch_size=8),
        "cpu": STMAESettings(
            size=128,
            stem=2,
            widths=(16, 32, 64),
            slots=(64, 64, 64),
            most=1000,
            epochs=4,
            batch_size=8,
            standardise="position",
            learning_rate=2e-3,
        ),
        "tiny": STMAESettings(
            size=64,
            past=2,
            stem=2,
            widths=(8, 16),
            slots=(16, 16),
            epochs=8,
            batch_size=4,
            learning_rate=1e-2,
        ),
    }
    info = MethodInfo(
        title="STM-AE",
        paper="Hu, Zhu: Pedestrian Spatio-Temporal Information Fusion For Video Anomaly Detection",
        year=2022,
        venue="arXiv 2211.10052",
        family="frame prediction with memories, for video",
        needs=("clips: frames in order",),
        reconstructed=(
            "network",
            "temporal shift and attention by their own papers",
            "addressing of the memories",
            "formula of the discreteness loss",
            "other losses",
            "score by the worst box",
            "all numbers",
        ),
    )
    settings: STMAESettings

    def __init__(self, settings: STMAESettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        self.predictor = Predictor(settings)
        self.base = Base(settings.size, settings.base)
        self.box = settings.box or in_proportion(BOX, settings.size)
        self.positions = Positions(settings.size**2, settings.standardise == "position")
        self.contrast = Contrast(self.box) if settings.standardise == "contrast" else None

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, clips = self.settings, data.clips(self.size, self.frames)
        if s.base == "background":
            yield OnePass("background", clips, self.base.add, self.base.finish, sums=True)
        if self.contrast:
            yield OnePass("contrast", clips, self.contrast.add, self.contrast.finish, sums=True)
        yield Optimise(
            "prediction",
            spread(clips, s.most),
            self.loss,
            list(self.predictor.parameters()),
            partial(torch.optim.Adam, lr=s.learning_rate),
            epochs=s.epochs,
            batch_size=s.batch_size,
            schedule=lambda done: 0.5 + 0.5 * cos(pi * done),
        )
        yield from self.positions.phases(clips, self.errors)

    def loss(self, clips: Tensor) -> Tensor:
        """Of the predicted frame to the true one, squared and by gradients, and of the memories' slots."""
        s, seen = self.settings, self.base.away(clips)
        seen = moving(seen, s.crop, s.crops) if s.crop else seen
        predicted, cosines = self.predicted(seen)
        true = seen[:, -1]
        total = F.mse_loss(predicted, true) + s.gradient * gradients_apart(predicted, true)
        if cosines:
            total = total + s.compactness * torch.stack([compactness(found) for found in cosines]).mean()
            total = total + s.discreteness * discreteness(self.predictor.memories, s.margin)
        return total

    def predicted(self, seen: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The last of the frames *seen* (B, T + 1, 3, h, w), about -1 to 1, told from the others; and all cosines."""
        found, cosines = self.predictor(seen[:, :-1])
        return self.base.back(found, seen[:, :-1]), cosines

    def errors(self, clips: Tensor) -> Tensor:
        """Squared error of the predicted frame, mean over colours and boxes: (B, T + 1, 3, s, s) -> (B, 1, s, s).

        By contrast it is that of the box over what a shift by a pixel would make of it.
        """
        seen = self.base.away(clips)
        error = ((self.predicted(seen)[0] - seen[:, -1]) / 2).square().mean(1, keepdim=True)
        found = box_mean(error, self.box, self.box // 2)
        return self.contrast(found, clips[:, -1]) if self.contrast else found

    def score(self, inputs: Tensor, size: tuple[int, int]) -> Scores:
        errors = self.positions(self.errors(inputs))
        flat = errors.flatten(1)
        image = flat.max(1).values if self.settings.image == "peak" else flat.mean(1)
        # Standardised errors may be below nothing, and have no decibels.
        image = image if self.positions.active else 10 * torch.log10(image + FAINT)
        return Scores(image, upsample(errors, size))


def gradients_apart(one: Tensor, two: Tensor) -> Tensor:
    """Mean difference of the absolute steps from pixel to pixel, along both axes (Liu et al., CVPR 2018)."""
    return torch.stack([(one.diff(dim=d).abs() - two.diff(dim=d).abs()).abs().mean() for d in (-1, -2)]).sum()


def compactness(cosine: Tensor) -> Tensor:
    """Mean squared distance of unit-length queries to their nearest slot, from cosines (1, N, slots)."""
    return (2 - 2 * cosine.max(-1).values).mean()


def discreteness(memories: Sequence[Memory], margin: float) -> Tensor:
    """How far slots of one memory are alike beyond *margin*: mean over all pairs of a level, summed over levels."""
    total = []
    for memory in memories:
        slots = F.normalize(memory.slots[0], dim=1)
        alike = F.relu(slots @ slots.T - margin)
        count = len(slots)
        total.append((alike.sum() - alike.diagonal().sum()) / max(1, count * (count - 1)))
    return torch.stack(total).sum()
