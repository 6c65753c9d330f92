"""SGSF: segmentation of forged images, guided at every scale by what a repairing autoencoder knows of the normal.

Xing, Sun and Li, 2022, arXiv 2209.12440. An autoencoder without skips turns the forged image back into the clean one;
its decoder's maps join the segmentation network's encoder level by level. Both learn together.
Reconstructed: the text of this version was out of reach, so fusion, losses, ratio of forged images and schedule are
those of its journal successor by the same authors (NIGSF, IEEE TCSVT 2024), and the guidance is the denoising branch
that paper compares with. With ``guidance`` frozen, ours, the encoder of that branch is a frozen backbone: a small
training need not learn first what textures are. With contrast it is the successor's: a similar normal image, rebuilt
as it is.
Memory after fit: the weights of both networks; unless guided by itself also the backbone's, and with contrast the
gallery, 3 * size^2 bytes a normal image.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.backbones.extractor import Backbone, BackboneSettings
from components.detectors.contract import (
    Images,
    MethodInfo,
    OnePass,
    Optimise,
    Phase,
    PixelDetector,
    Scores,
    Table,
    Together,
    TrainingData,
    epochs_of,
)
from components.detectors.parts.blocks import anomaly_head, box_mean, focal, in_proportion, upsample
from components.detectors.parts.convolutions import Decoder, Encoder, Twice, convolution
from components.detectors.parts.gallery import Gallery
from components.detectors.parts.similarity import structural_difference


@dataclass(frozen=True)
class SGSFSettings:
    """Settings; *widths* are channels per level, finest first, the last one the bottleneck's."""

    RETIRED: ClassVar[dict[str, str]] = {"grey": "forged images never have more colour than their image"}

    size: int = 256
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    fold: int = 1  # fold x fold pixels make one position of the finest level, for speed; 1: none are folded
    strategies: tuple[str, ...] = ("saliency",)
    copies: int = 1  # forged images per normal one, drawn once
    normal: int = 4  # every how many-th image of a batch stays normal: 4 is forged to normal 3 : 1
    guided: bool = True  # False: the segmentation network sees no guidance
    guidance: Literal["self", "frozen", "contrast"] = "self"  # image repaired (own or frozen encoder), or similar image
    gallery: int = 512  # contrast: normal images kept, a drawn subset of the fit normals
    similar: int = 4  # contrast: of how many most similar ones a training step draws one (the successor has 4 and 5)
    backbone: BackboneSettings = BackboneSettings("resnet18", (4,), 256)  # unless guided by itself; it sees at *size*
    detach: bool = False  # no gradient of the segmentation reaches the guidance network
    weight: float = 1.0  # of the guidance network's loss
    gamma: float = 2.0  # of the focal loss
    pool: int | None = None  # pixels; side of the mean behind the image score; none: 21 at size 256, in proportion, odd
    epochs: int = 800
    draws: int = 0  # ours: at least so many normal images in all epochs, so that few images get more epochs
    batch_size: int = 16
    learning_rate: float = 1e-4
    drops: tuple[float, ...] = (0.5, 0.7, 0.9)  # shares of the training at which the rate falls to a tenth
    cosine: bool = False  # the rate falls along half a cosine instead


class Own(nn.Module):
    """Image (B, 3, H, W) -> the map of a bottleneck, by an encoder that learns along."""

    def __init__(self, widths: Sequence[int], fold: int) -> None:
        super().__init__()
        self.fold, self.encoder = nn.PixelUnshuffle(fold), Encoder(3 * fold**2, widths)

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(self.fold(images))[-1]  # type: ignore[no-any-return]


class Frozen(nn.Module):
    """Features of a frozen backbone, one (B, C, h, w) per tap -> the map of a bottleneck, *side* x *side*."""

    def __init__(self, channels: Sequence[int], width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in channels)  # taps differ in range
        self.join = Twice(sum(channels), width)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        maps = [self._fitted(norm(x)) for norm, x in zip(self.norms, features, strict=True)]
        return self.join(torch.cat(maps, 1))  # type: ignore[no-any-return]

    def _fitted(self, maps: Tensor) -> Tensor:
        finer = maps.shape[2] // self.side
        return F.avg_pool2d(maps, finer) if finer > 1 else upsample(maps, (self.side, self.side))


class Guidance(nn.Module):
    """Whatever *encoder* takes -> maps of a decoder without skips, finest first, and an image (B, 3, H, W) in [0, 1].

    Everything passes the bottleneck, so that what was forged has no way around.
    """

    def __init__(self, encoder: nn.Module, widths: Sequence[int], fold: int) -> None:
        super().__init__()
        self.encoder, self.unfold = encoder, nn.PixelShuffle(fold)
        self.decoder = Decoder(list(widths)[::-1], [0] * (len(widths) - 1))
        self.head = nn.Conv2d(widths[0], 3 * fold**2, 3, padding=1)

    def forward(self, seen: Any) -> tuple[list[Tensor], Tensor]:
        maps = self.decoder(self.encoder(seen), [None] * len(self.decoder.levels))
        return maps[::-1], self.unfold(self.head(maps[-1])).sigmoid()


class Rise(nn.Module):
    """A level of the segmentation's decoder: transposed convolution, the fused map beside it, two convolutions."""

    def __init__(self, above: int, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(above, width, 2, 2)
        self.join = Twice(2 * width, width)

    def forward(self, x: Tensor, fused: Tensor) -> Tensor:
        return self.join(torch.cat([fused, self.up(x)], 1))  # type: ignore[no-any-return]


class Segmentation(nn.Module):
    """A U-Net that takes one guidance map per level: image (B, 3, H, W) -> logits (B, 1, H, W)."""

    def __init__(self, widths: Sequence[int], fold: int) -> None:
        super().__init__()
        *levels, deepest = widths
        self.fold, self.unfold = nn.PixelUnshuffle(fold), nn.PixelShuffle(fold)
        entering = [3 * fold**2, *(2 * w for w in levels)]
        self.levels = nn.ModuleList(Twice(a, b) for a, b in zip(entering, levels, strict=False))
        self.fusions = nn.ModuleList(nn.Sequential(*convolution(2 * w, w)) for w in levels)
        self.bottom = Twice(2 * levels[-1], deepest)
        self.rises = nn.ModuleList(Rise(a, b) for a, b in zip([deepest, *levels[:0:-1]], levels[::-1], strict=True))
        self.head = anomaly_head(levels[0], fold**2)

    def forward(self, images: Tensor, guidance: Sequence[Tensor]) -> Tensor:
        x, laterals = self.fold(images), []
        for level, fusion, guide in zip(self.levels, self.fusions, guidance, strict=True):
            both = torch.cat([guide, level(x)], 1)
            laterals.append(fusion(both))
            x = F.max_pool2d(both, 2)  # the encoder goes on with both, the skip takes their fusion
        x = self.bottom(x)
        for rise, lateral in zip(self.rises, laterals[::-1], strict=True):
            x = rise(x, lateral)
        return self.unfold(self.head(x))  # type: ignore[no-any-return]


class SGSF(PixelDetector):
    """Map: probability of the segmentation; image score: maximum of its local means."""

    name = "sgsf"
    settings_type = SGSFSettings
    presets = {
        "paper": SGSFSettings(),
        "cpu": SGSFSettings(
            128,
            (16, 32, 64, 64),
            fold=2,
            strategies=("saliency", "shade"),
            copies=4,
            guidance="frozen",
            backbone=BackboneSettings(taps=(2, 3)),
            epochs=7,
            draws=4200,
            batch_size=8,
            learning_rate=2e-3,
            cosine=True,
        ),
        "tiny": SGSFSettings(
            64,
            (12, 16, 16, 16),
            fold=2,
            copies=4,
            guidance="frozen",
            gallery=8,
            similar=2,
            backbone=BackboneSettings(taps=(2, 3), size=64),
            epochs=8,
            batch_size=8,
            learning_rate=1e-2,
            cosine=True,
        ),
    }
    info = MethodInfo(
        title="SGSF",
        paper="Xing, Sun, Li: Self-Supervised Guided Segmentation Framework for Unsupervised Anomaly Detection",
        year=2022,
        venue="arXiv 2209.12440",
        family="synthetic anomalies and segmentation",
        needs=("synthetic anomalies", "frozen backbone unless guided by the image itself"),
        reconstructed=(
            "guidance by denoising",
            "frozen encoder of the guidance",
            "fusion, losses and schedule after the journal successor",
            "widths",
            "side of the mean before the image score",
        ),
    )
    settings: SGSFSettings

    def __init__(self, settings: SGSFSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s = settings
        seeing = s.guided and s.guidance != "self"
        self.backbone = Backbone(replace(s.backbone, size=s.size), pretrained) if seeing else None
        encoder, self.gallery = self._entrance()
        self.guidance = Guidance(encoder, s.widths, s.fold)
        self.segmentation = Segmentation(s.widths, s.fold)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on CPU

    def _entrance(self) -> tuple[nn.Module, Gallery | None]:
        """The guidance network's encoder, and where its images come from if not from the batch."""
        s = self.settings
        if self.backbone and s.guidance == "frozen":
            return Frozen(self.backbone.channels, s.widths[-1], s.size // s.fold // 2 ** (len(s.widths) - 1)), None
        gallery = Gallery(s.gallery, s.size, self.backbone.channels[-1]) if self.backbone else None
        return Own(s.widths, s.fold), gallery

    def inputs(self, data: Images) -> Table:
        pixels = super().inputs(data)
        return Together(pixels, data.features(self.backbone)) if self.backbone else pixels

    def prepare(self, pictures: Sequence[Tensor]) -> Any:
        pixels = super().prepare(pictures)
        return (pixels, self.backbone(pixels)) if self.backbone else pixels

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s = self.settings
        pool = data.anomalies(s.strategies, s.size, s.copies)
        table = Together(pool.pixels(s.size), pool.clean(s.size), pool.masks(s.size))
        if self.backbone:
            features = data.features(self.backbone)
            if self.gallery:
                self.gallery.expect(len(features))
                yield OnePass("gallery", Together(data.pixels(s.size), features), self.gallery.add, lambda: None)
            forged = () if self.gallery else (pool.features(self.backbone),)
            table = Together(*table.tables, pool.before(self.backbone), *forged)
        yield Optimise(
            "segmentation",
            table,
            self.loss,
            [*self.guidance.parameters(), *self.segmentation.parameters()],
            partial(torch.optim.Adam, lr=s.learning_rate),
            epochs=epochs_of(table, s.epochs, s.draws * s.copies),
            batch_size=s.batch_size,
            schedule=self.factor,
        )

    def factor(self, done: float) -> float:
        """On the learning rate, at the *done* share of the training."""
        if self.settings.cosine:
            return 0.5 * (1 + math.cos(math.pi * done))
        return float(0.1 ** sum(done >= drop for drop in self.settings.drops))

    def maps(self, images: Tensor, seen: Any) -> tuple[Tensor, Tensor]:
        """Logits (B, 1, H, W) and what the guidance network makes of what it has *seen*: (B, 3, H, W)."""
        guides, rebuilt = self.guidance(seen)
        if not self.settings.guided:
            guides = [torch.zeros_like(g) for g in guides]
        elif self.settings.detach:
            guides = [g.detach() for g in guides]
        return self.segmentation(images, guides), rebuilt

    def mixed(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The batch with every *normal*-th image put back to what it was before it was forged."""
        forged, clean, masks = batch
        kept = self.kept(forged)
        return torch.where(kept, forged, clean), clean, masks * kept

    def kept(self, batch: Tensor) -> Tensor:
        """(B, 1, 1, 1): which rows stay forged."""
        rows = torch.arange(len(batch), device=batch.device)
        return (rows % self.settings.normal != self.settings.normal - 1).view(-1, 1, 1, 1)

    def shown(self, images: Tensor, clean: Tensor, features: Sequence[list[Tensor]]) -> tuple[Any, Tensor]:
        """What the guidance network sees in training, and the image that it is to make of it.

        *features* are of the clean images and, unless there is a gallery, of the forged ones.
        """
        if not features:
            return images, clean
        if self.gallery:
            normal = self.gallery.drawn(features[0], self.settings.similar)
            return normal, normal
        kept = self.kept(images)
        return [torch.where(kept, bad, good) for good, bad in zip(*features, strict=True)], clean

    def loss(self, batch: Sequence[Any]) -> Tensor:
        """Focal loss of the map; squared error and 1 - SSIM of what the guidance network was to make."""
        images, clean, masks = self.mixed(batch[:3])
        seen, wanted = self.shown(images, clean, batch[3:])
        logits, rebuilt = self.maps(images, seen)
        guidance = F.mse_loss(rebuilt, wanted) + structural_difference(rebuilt, wanted).mean()
        return focal(logits, masks, self.settings.gamma) + self.settings.weight * guidance

    def score(self, inputs: Any, size: tuple[int, int]) -> Scores:
        images, seen = inputs if self.backbone else (inputs, inputs)
        if self.gallery:
            seen = self.gallery.nearest(seen)
        found = self.maps(images, seen)[0].sigmoid()
        side = self.settings.pool or in_proportion(21, self.size)
        pooled = box_mean(found, side, side // 2)
        return Scores(pooled.flatten(1).max(1).values, upsample(found, size))
