"""SGSF: segmentation of forged images, guided at every scale by what a repairing autoencoder knows of the normal.

Xing, Sun and Li, 2022, arXiv 2209.12440. An autoencoder without skips turns the forged image back into the clean one;
its decoder's maps join the segmentation network's encoder level by level. Both learn together.
Reconstructed: the text of this version was out of reach, so fusion, losses, ratio of forged images and schedule are
those of its journal successor by the same authors (NIGSF, IEEE TCSVT 2024), and the guidance is the denoising branch
that paper compares with. With ``guidance`` contrast it is the successor's: a similar normal image, rebuilt as it is.
Memory after fit: the weights of both networks; with contrast also the gallery, 3 * size^2 bytes a normal image.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.backbones import Backbone, BackboneSettings
from components.detectors.blocks import box_mean, focal, upsample
from components.detectors.contract import (
    Fit,
    Images,
    MethodInfo,
    Optimise,
    PixelDetector,
    Repeated,
    Scores,
    Stage,
    Table,
    Together,
    TrainingData,
)
from components.detectors.convolutions import Decoder, Encoder, Twice, convolution
from components.detectors.gallery import Gallery
from components.detectors.similarity import structural_difference

PRIOR = -3.0  # first logit everywhere: anomalies are rare (Lin et al., ICCV 2017, section 3.3)


@dataclass(frozen=True)
class SGSFSettings:
    """Settings; *widths* are channels per level, finest first, the last one the bottleneck's."""

    size: int = 256
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    fold: int = 1  # fold x fold pixels make one position of the finest level, for speed; 1: none are folded
    strategies: tuple[str, ...] = ("saliency",)
    copies: int = 1  # forged images per normal one, drawn once
    grey: bool = False  # forged images of a grey product are made grey
    normal: int = 4  # every how many-th image of a batch stays normal: 4 is forged to normal 3 : 1
    guided: bool = True  # False: the segmentation network sees no guidance
    guidance: Literal["self", "contrast"] = "self"  # by the repaired image itself, or by a similar normal one
    gallery: int = 512  # contrast: normal images kept, evenly over the fit normals
    similar: int = 4  # contrast: of how many most similar ones a training step draws one (the successor has 4 and 5)
    backbone: BackboneSettings = BackboneSettings("resnet18", (4,), 256)  # contrast: what is similar, seen at size
    detach: bool = False  # no gradient of the segmentation reaches the guidance network
    weight: float = 1.0  # of the guidance network's loss
    gamma: float = 2.0  # of the focal loss
    pool: int = 21  # side in pixels of the mean before the image score's maximum
    epochs: int = 800
    batch_size: int = 16
    learning_rate: float = 1e-4
    drops: tuple[float, ...] = (0.5, 0.7, 0.9)  # shares of the training at which the rate falls to a tenth
    cosine: bool = False  # the rate falls along half a cosine instead


class Guidance(nn.Module):
    """A plain autoencoder: (B, 3, H, W) in [0, 1] -> its decoder's maps, finest first, and the repaired image."""

    def __init__(self, widths: Sequence[int], fold: int) -> None:
        super().__init__()
        upward = list(widths)[::-1]
        self.fold, self.unfold = nn.PixelUnshuffle(fold), nn.PixelShuffle(fold)
        self.encoder, self.decoder = Encoder(3 * fold**2, widths), Decoder(upward, [0] * (len(widths) - 1))
        self.head = nn.Conv2d(widths[0], 3 * fold**2, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[list[Tensor], Tensor]:
        # No skips: everything passes the bottleneck, so that what was forged has no way around.
        maps = self.decoder(self.encoder(self.fold(images))[-1], [None] * len(self.decoder.levels))
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
        self.head = nn.Conv2d(levels[0], fold**2, 3, padding=1)
        nn.init.constant_(self.head.bias, PRIOR)  # type: ignore[arg-type]

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
            128, (16, 32, 64, 64), fold=2, copies=3, grey=True, backbone=BackboneSettings(taps=(4,)), pool=11,
            epochs=10, batch_size=8, learning_rate=2e-3, cosine=True,
        ),
        "tiny": SGSFSettings(
            64, (12, 16, 16, 16), fold=2, copies=4, grey=True, gallery=4, similar=2,
            backbone=BackboneSettings(taps=(4,), size=64), pool=5, epochs=8, batch_size=8, learning_rate=1e-2,
            cosine=True,
        ),
    }  # fmt: skip
    info = MethodInfo(
        title="SGSF",
        paper="Xing, Sun, Li: Self-Supervised Guided Segmentation Framework for Unsupervised Anomaly Detection",
        year=2022,
        venue="arXiv 2209.12440",
        family="synthetic anomalies and segmentation",
        needs=("synthetic anomalies", "frozen backbone for guidance by contrast, if chosen"),
        reconstructed=(
            "guidance by denoising",
            "fusion, losses and schedule after the journal successor",
            "widths",
            "side of the mean before the image score",
        ),
    )
    settings: SGSFSettings

    def __init__(self, settings: SGSFSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s = settings
        self.guidance = Guidance(s.widths, s.fold)
        self.segmentation = Segmentation(s.widths, s.fold)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on CPU
        contrast = s.guided and s.guidance == "contrast"
        self.backbone = Backbone(replace(s.backbone, size=s.size), pretrained) if contrast else None
        self.gallery = Gallery(s.gallery, s.size, self.backbone.channels[-1]) if self.backbone else None

    def inputs(self, data: Images) -> Table:
        pixels = super().inputs(data)
        return Together(pixels, data.features(self.backbone)) if self.backbone else pixels

    def prepare(self, images: Tensor) -> Any:
        pixels = super().prepare(images)
        return (pixels, self.backbone(images)) if self.backbone else pixels

    def stages(self, data: TrainingData) -> Iterable[Stage]:
        s = self.settings
        pool = data.anomalies(s.strategies, s.size, s.copies, s.grey)
        table = Together(pool.pixels(s.size), pool.clean(s.size), pool.masks(s.size))
        if self.backbone and self.gallery:
            features = data.features(self.backbone)
            self.gallery.expect(len(features))
            yield Fit("gallery", Together(data.pixels(s.size), features), self.gallery.add, lambda: None)
            table = Together(*table.tables, Repeated(features, s.copies))
        yield Optimise(
            "segmentation",
            table,
            self.loss,
            [*self.guidance.parameters(), *self.segmentation.parameters()],
            partial(torch.optim.Adam, lr=s.learning_rate),
            epochs=s.epochs,
            batch_size=s.batch_size,
            schedule=self.factor,
        )

    def factor(self, done: float) -> float:
        """On the learning rate, at the *done* share of the training."""
        if self.settings.cosine:
            return 0.5 * (1 + math.cos(math.pi * done))
        return float(0.1 ** sum(done >= drop for drop in self.settings.drops))

    def maps(self, images: Tensor, normal: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, 1, H, W) and what the guidance network makes of *normal*, or of the images: (B, 3, H, W)."""
        guides, rebuilt = self.guidance(images if normal is None else normal)
        if not self.settings.guided:
            guides = [torch.zeros_like(g) for g in guides]
        elif self.settings.detach:
            guides = [g.detach() for g in guides]
        return self.segmentation(images, guides), rebuilt

    def mixed(self, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """The batch with every *normal*-th image put back to what it was before it was forged."""
        forged, clean, masks = batch
        rows = torch.arange(len(forged), device=forged.device)
        kept = (rows % self.settings.normal != self.settings.normal - 1).view(-1, 1, 1, 1)
        return torch.where(kept, forged, clean), clean, masks * kept

    def loss(self, batch: Sequence[Any]) -> Tensor:
        """Focal loss of the map; squared error and 1 - SSIM of what the guidance network was to make."""
        images, clean, masks = self.mixed(batch[:3])
        normal = self.gallery.drawn(batch[3], self.settings.similar) if self.gallery else None
        logits, rebuilt = self.maps(images, normal)
        wanted = clean if normal is None else normal
        guidance = F.mse_loss(rebuilt, wanted) + structural_difference(rebuilt, wanted).mean()
        return focal(logits, masks, self.settings.gamma) + self.settings.weight * guidance

    def score(self, inputs: Any, size: tuple[int, int]) -> Scores:
        images, normal = (inputs[0], self.gallery.nearest(inputs[1])) if self.gallery else (inputs, None)
        found = self.maps(images, normal)[0].sigmoid()
        pooled = box_mean(found, self.settings.pool, self.settings.pool // 2)
        return Scores(pooled.flatten(1).max(1).values, upsample(found, size))
