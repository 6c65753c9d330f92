"""FMR-Net: a texture is rebuilt from remembered normal features (Yao, Yu, Wang, IEEE TASE 2023, arXiv 2206.10830).

A memory of normal latents, learned by contrast, takes the place of the latents of an image; what the skip connections
carry is rearranged from small normal textons; the decoder rebuilds the background, and three measures of the difference
make the map. How far a latent is from the memory is an answer of its own, before any decoding (``edge``).
Reconstructed: only the abstract and notes of the journal version were within reach; see ``info.reconstructed``.
Memory after fit: the weights, 6 million in the ``paper`` preset.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
from components.detectors.parts.together import averaged


@dataclass(frozen=True)
class FMRNetSettings:
    """Settings; *widths* are those of the encoder's levels at strides 2, 4, 8 and 16; the last level is the latents."""

    size: int = 256
    widths: tuple[int, ...] = (64, 128, 256, 256)
    embedding: int = 128  # length of an embedded latent and of a slot of the memory
    slots: int = 256  # of the memory; regular textures need fewer than random ones
    nearest: int = 3  # slots that a latent is replaced from
    temperature: float = 0.1  # of both kinds of addressing and of the contrast
    textons: int = 256  # in the dictionary of each skip connection
    texton: int = 3  # side of a texton, in cells of its level
    step: int = 1  # between textons; the side itself: no overlap
    contrast: float = 0.1  # weight of the contrastive loss
    balance: float = 0.1  # weight of the loss that keeps all slots in use
    epochs: int = 150  # phase 1, defect-free images only
    restore_epochs: int = 150  # phase 2, synthetic defects
    batch_size: int = 8
    learning_rate: float = 1e-3
    restore_rate: float = 1e-4
    inside: float = 3.0  # weight of a pixel inside a synthetic defect, outside it is 1
    apart: float = 0.1  # weight of pushing embedded defects off the memory in phase 2; 0: the embedding is frozen too
    margin: float = 0.5  # cosine up to which an embedded defect may resemble a slot
    strategies: tuple[str, ...] = ("line_defect", "spot_defect", "texture_defect")
    brightness: bool = False  # ours: gain and offset of what is rebuilt are fitted to each image
    blur: float = 4.0
    positions: bool = False  # ours: each position of the map by its mean and deviation on the fit normals


class Rearrangement(nn.Module):
    """What a skip connection carries, rebuilt from a dictionary of normal textons, each a small block of cells.

    ``forward``: skip (B, C, h, w) and restored latents (B, D, h', w') -> (B, C, h, w).
    """

    def __init__(self, channels: int, restored: int, settings: FMRNetSettings) -> None:
        super().__init__()
        self.side, self.step = settings.texton, settings.step
        self.query = nn.Conv2d(channels + restored, channels, 1)
        self.textons = Memory(settings.textons, channels * self.side**2, temperature=settings.temperature)

    def forward(self, skip: Tensor, restored: Tensor) -> Tensor:
        size = (skip.shape[2], skip.shape[3])
        # Restored latents stand in the query, so that what is asked for is not up to the defect alone.
        query = self.query(torch.cat([skip, upsample(restored, size)], 1))
        blocks = self._blocks(query)  # (B, C * side * side, L)
        rows = blocks.transpose(1, 2).reshape(1, -1, blocks.shape[1])
        read = self.textons(rows)[0].view(-1, blocks.shape[2], blocks.shape[1]).transpose(1, 2)
        covered = self._put_back(self._blocks(torch.ones_like(skip[:1, :1])), size)
        return self._put_back(read, size) / covered

    def _blocks(self, maps: Tensor) -> Tensor:
        return F.unfold(maps, self.side, padding=self._margin, stride=self.step)

    def _put_back(self, blocks: Tensor, size: tuple[int, int]) -> Tensor:
        return F.fold(blocks, size, self.side, padding=self._margin, stride=self.step)

    @property
    def _margin(self) -> int:
        return (self.side - self.step) // 2


class FMRNet(PixelDetector):
    """Map: mean of three standardised differences from the rebuilt image, blurred; image score: its maximum."""

    name = "fmr_net"
    settings_type = FMRNetSettings
    presets = {
        "paper": FMRNetSettings(),
        "cpu": FMRNetSettings(
            size=128,
            widths=(16, 32, 64, 64),
            embedding=64,
            slots=128,
            textons=64,
            texton=2,
            step=2,
            contrast=0.0,
            epochs=8,
            restore_epochs=8,
            learning_rate=2e-3,
            restore_rate=1e-3,
            blur=2.0,
            positions=True,
        ),
        "tiny": FMRNetSettings(
            size=64,
            widths=(8, 16, 16, 16),
            embedding=16,
            slots=16,
            textons=16,
            epochs=10,
            restore_epochs=6,
            batch_size=4,
            learning_rate=5e-3,
            restore_rate=2e-3,
            blur=1.0,
        ),
    }
    info = MethodInfo(
        title="FMR-Net",
        paper="Yao, Yu, Wang: A Feature Memory Rearrangement Network for Visual Inspection of Textured Surface Defects "
        "Toward Edge Intelligent Manufacturing",
        year=2023,
        venue="IEEE TASE 20(4); arXiv 2206.10830",
        family="reconstruction",
        needs=("synthetic anomalies for the second phase",),
        reconstructed=(
            "network",
            "form of the contrastive loss and of the substitution",
            "form of the rearrangement",
            "synthetic defects",
            "fusion of the three maps",
            "light fitted to each image",
            "all numbers",
        ),
    )
    settings: FMRNetSettings

    def __init__(self, settings: FMRNetSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s, (first, second, third, latent) = settings, settings.widths
        entering = (3, first, second, third)
        self.encoder = nn.ModuleList(
            nn.Sequential(*convolution(a, b, stride=2), *convolution(b, b))
            for a, b in zip(entering, s.widths, strict=True)
        )
        self.embed = nn.Conv2d(latent, s.embedding, 1)
        self.memory = Memory(s.slots, s.embedding, temperature=s.temperature, most=s.nearest)
        self.rearrange = nn.ModuleList(Rearrangement(c, s.embedding, s) for c in (third, second))
        self.enter = nn.Conv2d(s.embedding, latent, 1)
        self.decoder = Decoder((latent, third, second, first, first), (third, second, 0, 0))
        self.leave = nn.Conv2d(first, 3, 1)
        self.standardise = Standardise(3, active=True)
        self.blur = GaussianBlur(s.blur)
        self.positions = Positions(s.size**2, s.positions)

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, clean = self.settings, data.pixels(self.size)
        yield Optimise(
            "background",
            clean,
            self.background_loss,
            list(self.parameters()),
            partial(torch.optim.Adam, lr=s.learning_rate),
            s.epochs,
            s.batch_size,
            select=False,
        )
        # Once before phase 2 too: its epochs are chosen by the fused map, whose parts must be of one scale.
        yield OnePass("scale", clean, self._add, self._standardise, sums=True)
        pool = data.anomalies(s.strategies, self.size)
        table = Together(pool.pixels(self.size), pool.clean(self.size), pool.masks(self.size))
        yield Optimise(
            "restoration",
            table,
            self.restoration_loss,
            self.restoring(),
            partial(torch.optim.Adam, lr=s.restore_rate),
            s.restore_epochs,
            s.batch_size,
        )
        yield OnePass("standardise", clean, self._add, self._standardise, sums=True)
        yield from self.positions.phases(clean, self._fused)

    def restoring(self) -> list[nn.Parameter]:
        """What phase 2 trains: never the encoder or the memory, which would learn the defects."""
        parts: list[nn.Module] = [self.rearrange, self.enter, self.decoder, self.leave]
        if self.settings.apart:
            parts.append(self.embed)
        return [p for part in parts for p in part.parameters()]

    def features(self, images: Tensor) -> list[Tensor]:
        """Every level of the encoder, finest first; the last one is the latents."""
        found = [images]
        for level in self.encoder:
            found.append(level(found[-1]))
        return found[1:]

    def rebuilt(self, features: list[Tensor], embedded: Tensor) -> Tensor:
        """The normal background (B, 3, size, size) in [0, 1] from *features* and the embedded latents."""
        restored = self.substituted(embedded)
        skips = [rearrange(skip, restored) for rearrange, skip in zip(self.rearrange, features[2:0:-1], strict=True)]
        return self.leave(self.decoder(self.enter(restored), [*skips, None, None])[-1]).sigmoid()  # type: ignore[no-any-return]

    def substituted(self, embedded: Tensor) -> Tensor:
        """Every embedded latent by the memory's answer to it; (B, D, h, w) -> the same."""
        return as_maps(self.memory(as_queries(embedded))[0], embedded)

    def background_loss(self, images: Tensor) -> Tensor:
        """Phase 1: reconstruction, and a memory that each normal latent finds one slot in and that is used evenly."""
        s, features = self.settings, self.features(images)
        embedded = self.embed(features[-1])
        rebuilt = self.rebuilt(features, embedded)
        cosine = self.memory.cosine(as_queries(embedded))[0]
        return (
            (rebuilt - images).square().mean()
            + structural_difference(rebuilt, images).mean()
            + s.contrast * contrast(cosine, s.temperature).mean()
            + s.balance * imbalance(cosine, s.temperature)
        )

    def restoration_loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Phase 2: defective images (B, 3, S, S) to the clean ones; masks (B, 1, S, S) say where that counts more."""
        s, (defective, clean, masks) = self.settings, batch
        with torch.no_grad():
            features = self.features(defective)
        embedded = self.embed(features[-1])
        rebuilt = self.rebuilt(features, embedded)
        apart = (
            (clean - rebuilt).square().mean(1, keepdim=True)
            + structural_difference(clean, rebuilt)
            + gradient_difference(clean, rebuilt)
        )
        loss = (apart * (1 + (s.inside - 1) * masks)).mean()
        return loss + s.apart * self.repulsion(embedded, masks) if s.apart else loss

    def repulsion(self, embedded: Tensor, masks: Tensor) -> Tensor:
        """Embeddings of defective cells off the memory, those clear of any defect towards it."""
        s = self.settings
        cells = F.adaptive_max_pool2d(masks, (embedded.shape[2], embedded.shape[3]))
        clear = 1 - F.max_pool2d(cells, 3, 1, 1)  # a latent also sees the cells around its own
        cosine = self.memory.cosine(as_queries(embedded))[0]
        pushed = F.relu(cosine.max(1).values - s.margin)
        return _mean(pushed, cells.flatten()) + _mean(contrast(cosine, s.temperature), clear.flatten())

    def differences(self, images: Tensor, rebuilt: Tensor) -> Tensor:
        """Gradient similarity, structural similarity and residual, each as a difference: (B, 3, size, size)."""
        residual = (images - rebuilt).abs().mean(1, keepdim=True)
        return torch.cat([gradient_difference(images, rebuilt), structural_difference(images, rebuilt), residual], 1)

    def measured(self, images: Tensor) -> Tensor:
        features = self.features(images)
        rebuilt = self.rebuilt(features, self.embed(features[-1]))
        if self.settings.brightness:
            rebuilt = relit(rebuilt, images)
        return self.differences(images, rebuilt)

    def _add(self, images: Tensor) -> None:
        self.standardise.add(self.measured(images))

    def _standardise(self) -> None:
        self.standardise.finish()
        self.standardise.sums.zero_()

    def score(self, inputs: Tensor, size: tuple[int, int]) -> Scores:
        own = self.positions(self._fused(inputs))
        return Scores(own.flatten(1).max(1).values, upsample(own, size))

    def _fused(self, images: Tensor) -> Tensor:
        """The three standardised differences in one map, (B, 1, size, size)."""
        return self.blur(F.relu(self.standardise(self.measured(images))).mean(1, keepdim=True))  # type: ignore[no-any-return]

    def edge(self, inputs: Tensor, size: tuple[int, int]) -> Scores:
        """The answer of the memory alone: 1 - cosine to the nearest slot, mean of 3 x 3 cells; no decoder runs."""
        embedded = self.embed(self.features(inputs)[-1])
        far = 1 - self.memory.cosine(as_queries(embedded)).max(2, keepdim=True).values
        coarse = F.avg_pool2d(as_maps(far, embedded), 3, 1, 1, count_include_pad=False)
        return Scores(coarse.flatten(1).max(1).values, upsample(coarse, size))


def contrast(cosine: Tensor, temperature: float) -> Tensor:
    """InfoNCE of each embedding against the memory, its nearest slot being the positive: (N, slots) -> (N,)."""
    return F.cross_entropy(cosine / temperature, cosine.argmax(1), reduction="none")


def imbalance(cosine: Tensor, temperature: float) -> Tensor:
    """How far the use of the slots over a batch is from even: 0 (even) to log(slots) (one slot serves all)."""
    used = averaged((cosine / temperature).softmax(1).mean(0))
    return math.log(len(used)) - entropy(used)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    return (values * weights).sum() / weights.sum().clamp_min(1)
