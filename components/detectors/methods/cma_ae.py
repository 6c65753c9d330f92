"""CMA-AE: clear memory-augmented autoencoder (Luo, Niu, Tang, Yu and Li, 2022, arXiv 2208.03879).

A network that repairs images: it is trained on artificial anomalies with the clean image as target. At the latent, what
was encoded and what a memory of normal patterns makes of it are mixed by two learned gates, one that forgets and one
that writes. The map is the residual of features between an image and its repair, on several scales.
Reconstructed: all that the abstract leaves open, which is the network, the losses, the features and the numbers.
Memory after fit: the weights, the slots and, with ``residual_features`` backbone, the frozen backbone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import cos, pi
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.backbones.extractor import Backbone, BackboneSettings
from components.core.errors import SettingsError
from components.detectors.contract import (
    MethodInfo,
    OnePass,
    Optimise,
    Phase,
    PixelDetector,
    Scores,
    Together,
    TrainingData,
)
from components.detectors.parts.blocks import GaussianBlur, Positions, Standardise, upsample
from components.detectors.parts.convolutions import Decoder, convolution
from components.detectors.parts.light import relit
from components.detectors.parts.memory import Memory, as_maps, as_queries, entropy
from components.detectors.parts.similarity import gradient_difference, structural_difference

Pairs = tuple[Tensor, Tensor, Tensor]  # anomalous images, the clean ones, masks


@dataclass(frozen=True)
class CMAAESettings:
    """Settings; *widths* go down from half the resolution, each level at half the side of the one before."""

    size: int = 256
    widths: tuple[int, ...] = (64, 128, 256, 512)  # reconstructed
    output_width: int = 32  # of the decoder at full resolution; reconstructed
    gated: int = 1  # the deepest levels that hand on, through gates and a memory each; reconstructed
    mixing: bool = True  # False: what memory says is handed on alone, as in a plain memory-augmented autoencoder
    slots: int = 500  # of each memory; reconstructed
    temperature: float = 0.1  # of the addressing; reconstructed
    shrink: float = 0.0  # address weights below it become zero; reconstructed
    strategies: tuple[str, ...] = ("natural", "natural_blended")
    copies: int = 4  # artificial anomalies per normal image, drawn once; reconstructed
    clean_share: float = 0.3  # of the pairs that get no anomaly; reconstructed
    structure: float = 1.0  # weight of 1 - SSIM beside the squared error; reconstructed
    gradient: float = 1.0  # weight of 1 - GMS; reconstructed
    entropy: float = 2e-4  # weight of the entropy of the addressing; reconstructed
    hidden: float = 0.0  # ours: share of positions whose encoding is kept from the decoder in training: memory answers
    forgetting: float = 0.0  # weight of a loss that ties the forget gate to the masks; reconstructed
    epochs: int = 300  # reconstructed
    batch_size: int = 8  # reconstructed
    learning_rate: float = 1e-4  # reconstructed
    weight_decay: float = 1e-5  # reconstructed
    residual_features: Literal["encoder", "backbone"] = "backbone"  # reconstructed: of which network the residual is
    backbone: BackboneSettings = BackboneSettings("resnet18", (0, 1, 2), 256)
    brightness: bool = False  # ours: gain and offset of what is rebuilt are fitted to each image
    standardise: Literal["scale", "position"] = "scale"  # ours: what shares one scale; position if better
    blur: float = 4.0  # sigma, pixels of the working size; reconstructed
    image: Literal["maximum", "deviation"] = "maximum"  # of the map is the image score; reconstructed

    def __post_init__(self) -> None:
        scales = len(self.backbone.taps if self.residual_features == "backbone" else self.widths)
        if scales < 3:
            raise SettingsError(f"{self.residual_features} features come at {scales} scales; at least 3 are compared")
        if not 1 <= self.gated <= len(self.widths):
            raise SettingsError(f"gated is {self.gated} of {len(self.widths)} levels")


class ClearMemory(nn.Module):
    """What was encoded, as far as it is not forgotten, and what memory says instead: (B, C, h, w) -> the same.

    Both gates are the sigmoid of a convolution over the encoding and its memory reading, one value per channel and
    position. ``forward`` also returns the forget gate and the address weights.
    """

    def __init__(self, width: int, settings: CMAAESettings) -> None:
        super().__init__()
        self.memory = Memory(settings.slots, width, temperature=settings.temperature, shrink=settings.shrink)
        self.forget = nn.Conv2d(2 * width, width, 3, padding=1)
        self.write = nn.Conv2d(2 * width, width, 3, padding=1)
        self.mixing, self.hidden = settings.mixing, settings.hidden
        nn.init.ones_(self.forget.bias)  # type: ignore[arg-type]  # at first little is forgotten
        nn.init.zeros_(self.write.bias)  # type: ignore[arg-type]

    def forward(self, encoded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, weights = self.memory(as_queries(encoded))
        remembered = as_maps(rows, encoded)
        both = torch.cat([encoded, remembered], 1)
        kept, written = self.forget(both).sigmoid(), self.write(both).sigmoid()
        if self.training and self.hidden:  # a memory that the decoder can do without stays empty
            encoded = encoded * (torch.rand_like(encoded[:, :1]) >= self.hidden)
        return kept * encoded + written * remembered if self.mixing else remembered, kept, weights


class Restorer(nn.Module):
    """Images (B, 3, H, W) -> their repair; the levels that hand anything on do so through a clear memory."""

    def __init__(self, settings: CMAAESettings) -> None:
        super().__init__()
        widths = settings.widths
        leaky = partial(nn.LeakyReLU, 0.2)
        steps = zip((3, *widths), widths, strict=False)
        self.down = nn.ModuleList(
            nn.Sequential(*convolution(a, b, stride=2, activation=leaky), *convolution(b, b, activation=leaky))
            for a, b in steps
        )
        open_to = [w if i < settings.gated else 0 for i, w in enumerate(reversed(widths))]
        self.gates = nn.ModuleList(ClearMemory(w, settings) for w in open_to if w)
        self.decoder = Decoder([*reversed(widths), settings.output_width], [*open_to[1:], 0])
        self.head = nn.Conv2d(settings.output_width, 3, 3, padding=1)

    def encode(self, images: Tensor) -> list[Tensor]:
        """One map per level, finest first."""
        found, x = [], images
        for level in self.down:
            x = level(x)
            found.append(x)
        return found

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """The repair, and per gated level, coarsest first, the forget gate and the address weights."""
        levels = self.encode(images)[::-1]
        passed = [gate(level) for gate, level in zip(self.gates, levels, strict=False)]
        mixed, kept, weights = (list(part) for part in zip(*passed, strict=True))
        laterals = [*mixed[1:], *[None] * (len(levels) - len(mixed) + 1)]
        return self.head(self.decoder(mixed[0], laterals)[-1]).sigmoid(), kept, weights


class CMAAE(PixelDetector):
    """Map: standardised feature residuals of an image and its repair, summed over scales and blurred."""

    name = "cma_ae"
    settings_type = CMAAESettings
    presets = {
        "paper": CMAAESettings(),
        "cpu": CMAAESettings(
            size=128,
            widths=(32, 64, 96),
            output_width=16,
            gated=2,
            slots=200,
            copies=2,
            hidden=0.3,
            forgetting=0.1,
            epochs=4,
            learning_rate=1e-3,
            backbone=BackboneSettings(taps=(0, 1, 2), size=128),
            standardise="position",
            blur=1.0,
        ),
        "tiny": CMAAESettings(
            size=64,
            widths=(8, 16, 16),
            output_width=8,
            slots=20,
            copies=1,
            epochs=4,
            batch_size=4,
            learning_rate=5e-3,
            residual_features="encoder",
            blur=1.0,
        ),
    }
    info = MethodInfo(
        title="CMA-AE",
        paper="Luo, Niu, Tang, Yu, Li: Clear Memory-Augmented Auto-Encoder for Surface Defect Detection",
        year=2022,
        venue="arXiv 2208.03879",
        family="pixel restoration with memory",
        needs=("synthetic anomalies", "frozen backbone for the residual, if chosen"),
        reconstructed=(
            "network",
            "form of the gates",
            "losses",
            "artificial anomalies",
            "features",
            "light fitted to each image",
            "hiding the encoding in training",
            "all numbers",
        ),
    )
    settings: CMAAESettings

    def __init__(self, settings: CMAAESettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s = settings
        self.restorer = Restorer(s)
        outer = s.residual_features == "backbone"
        self.backbone = Backbone(replace(s.backbone, size=s.size), pretrained) if outer else None
        scales = len(s.backbone.taps if outer else s.widths)
        self.fuse = Standardise(scales, True)
        self.positions = Positions(scales * s.size**2, s.standardise == "position")  # of what is of one scale
        self.blur = GaussianBlur(s.blur)

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, pool = self.settings, data.anomalies(self.settings.strategies, self.settings.size, self.settings.copies)
        # By position the map means little before the phase behind this one: the last epoch stands, at a rate of zero.
        chosen = s.standardise == "scale"
        yield Optimise(
            "restoration",
            Together(pool.pixels(self.size), pool.clean(self.size), pool.masks(self.size)),
            self.loss,
            list(self.restorer.parameters()),
            partial(torch.optim.AdamW, lr=s.learning_rate, weight_decay=s.weight_decay),
            epochs=s.epochs,
            batch_size=s.batch_size,
            schedule=(lambda _: 1.0) if chosen else (lambda done: 0.5 + 0.5 * cos(pi * done)),
            select=chosen,
        )
        clean = data.pixels(self.size)
        yield OnePass("standardise", clean, self._add, self.fuse.finish, sums=True)
        yield from self.positions.phases(clean, lambda images: self.fuse(self.residuals(images)))

    def loss(self, pairs: Pairs) -> Tensor:
        """Of the repair of anomalous images to the clean ones, squared, structural and by gradients."""
        s, (images, clean, masks) = self.settings, self.mixed(pairs)
        repaired, kept, weights = self.restorer(images)
        total = F.mse_loss(repaired, clean) + s.structure * structural_difference(repaired, clean).mean()
        total = total + s.gradient * gradient_difference(repaired, clean).mean()
        total = total + s.entropy * torch.stack([entropy(w) for w in weights]).mean()
        return total + s.forgetting * forgetting(kept, masks) if s.forgetting else total

    def mixed(self, pairs: Pairs) -> Pairs:
        """A share of the anomalous images, drawn anew at every step, gives way to the clean ones."""
        images, clean, masks = pairs
        left = torch.rand(len(images), 1, 1, 1, device=images.device) < self.settings.clean_share
        return torch.where(left, clean, images), clean, torch.where(left, 0.0, masks)

    def _add(self, images: Tensor) -> None:
        self.fuse.add(self.residuals(images))

    def residuals(self, images: Tensor) -> Tensor:
        """Squared distance of unit-length features of the images and of their repairs: (B, scales, size, size)."""
        features = self.restorer.encode if self.backbone is None else self.backbone
        repaired = self.restorer(images)[0]
        if self.settings.brightness:
            repaired = relit(repaired, images)
        pairs = zip(features(images), features(repaired), strict=True)
        return torch.cat([upsample(_apart(a, b), (self.size, self.size)) for a, b in pairs], 1)

    def score(self, inputs: Tensor, size: tuple[int, int]) -> Scores:
        own = self.blur(self.positions(self.fuse(self.residuals(inputs))).sum(1, keepdim=True))
        flat = own.flatten(1)
        image = flat.max(1).values if self.settings.image == "maximum" else flat.std(1, correction=0)
        return Scores(image, upsample(own, size))


def forgetting(kept: Sequence[Tensor], masks: Tensor) -> Tensor:
    """Cross-entropy of the forget gates' channel means against what is not anomalous."""
    sides = [(gate.shape[2], gate.shape[3]) for gate in kept]
    targets = [1 - F.adaptive_max_pool2d(masks, side) for side in sides]
    means = [gate.mean(1, keepdim=True) for gate in kept]
    return torch.stack([F.binary_cross_entropy(m, t) for m, t in zip(means, targets, strict=True)]).mean()


def _apart(one: Tensor, two: Tensor) -> Tensor:
    """Squared distance of unit-length features: (B, C, h, w) twice -> (B, 1, h, w)."""
    return (F.normalize(one, dim=1) - F.normalize(two, dim=1)).square().sum(1, keepdim=True)
