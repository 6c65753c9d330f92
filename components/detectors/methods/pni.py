"""PNI: distance to the nearest patch that position and neighbourhood allow (Bae et al., ICCV 2023, arXiv 2211.12634).

A memory bank of patch features, whose entries are switched on and off per position by how plausible they are there:
by a classifier that sees the neighbourhood without its centre, and by a histogram over training positions. A small
network, trained on synthetic defects, refines the map with the image.
Reconstructed: the streaming bank in place of a greedy one, one bank with the border, the refinement network (a small
U-Net for DenseNet-161) and the scale of its input; the classifier may see principal components (``reduce``).
Memory after fit: bank_size x channels, the classifier (206 million weights as published), the refinement network.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.backbones.extractor import BackboneSettings
from components.detectors.contract import (
    BackboneDetector,
    Images,
    MethodInfo,
    OnePass,
    Optimise,
    Phase,
    Scores,
    Together,
    TrainingData,
    scratch,
)
from components.detectors.parts.blocks import GaussianBlur, Positions, nearest, upsample
from components.detectors.parts.convolutions import convolution
from components.detectors.parts.coreset import FAR, Coreset, farthest_first

EMPTY = 1e9  # squared distance of an entry that is not allowed


@dataclass(frozen=True)
class PNISettings:
    """Settings; *neighbourhood*, *position* and *refine* are the paper's three parts."""

    backbone: BackboneSettings = BackboneSettings("wide_resnet101_2", (2, 3), 480)
    patch: int = 5  # side of the local mean of the features
    bank_size: int = 6500  # C_emb; the paper takes 1 % of all patches
    representatives: int = 2048  # C_dist, the classes of both models
    growth: float = 1.08  # of the radius of the bank, see coreset.py
    neighbourhood: bool = True
    window: int = 9
    released_centre: bool = False  # True: hide the cell right of the centre, as the released code does by mistake
    reduce: int = 0  # principal components the classifier sees (0: all channels)
    hidden: int = 2048
    layers: int = 10
    dropout: float = 0.5
    temperature: float = 2.0
    epochs: int = 15
    batch_size: int = 4
    learning_rate: float = 1e-3
    position: bool = True
    # 1 / (2 x their number) is what plausibility must reach: of entries, as published; ours: of the classes it is of
    limit: Literal["entries", "classes"] = "entries"
    spread: int = 4  # cells around a position whose patches count for it
    refine: bool = True
    refine_width: int = 32
    refine_size: int = 320
    refine_epochs: int = 40
    refine_rate: float = 1e-4
    refine_share: float = 0.1  # of the refined map in the final one
    strategies: tuple[str, ...] = ("cutpaste", "scar", "perlin_texture", "perlin_self")
    blur: float = 8.0
    positions: bool = False  # ours: each position of the map by its mean and deviation on the fit normals


class Neighbourhood(nn.Module):
    """Logits of the representatives (B, M, h, w) from all features in the window but the centre."""

    hidden_centre: Tensor

    def __init__(self, entering: int, settings: PNISettings) -> None:
        super().__init__()
        s = settings
        self.first = nn.Conv2d(entering, s.hidden, s.window, padding=s.window // 2)
        centre = torch.ones(s.window**2)
        centre[s.window**2 // 2 + int(s.released_centre)] = 0
        self.register_buffer("hidden_centre", centre.view(1, 1, s.window, s.window), persistent=False)
        inner: list[nn.Module] = [nn.BatchNorm2d(s.hidden), nn.ReLU(), nn.Dropout(s.dropout)]
        for _ in range(s.layers - 2):
            inner += [nn.Conv2d(s.hidden, s.hidden, 1), nn.BatchNorm2d(s.hidden), nn.ReLU(), nn.Dropout(s.dropout)]
        self.rest = nn.Sequential(*inner, nn.Conv2d(s.hidden, s.representatives, 1))

    def forward(self, x: Tensor) -> Tensor:
        # The published multilayer perceptron over flattened windows, as a convolution: the same sums.
        weight = self.first.weight * self.hidden_centre
        return self.rest(F.conv2d(x, weight, self.first.bias, padding=weight.shape[-1] // 2))  # type: ignore[no-any-return]


class Refine(nn.Module):
    """A small U-Net over image and map, joined after their stems; gives what is added to the map (B, 1, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image, self.map = nn.Sequential(*convolution(3, width)), nn.Sequential(*convolution(1, width))
        widths = [width, 2 * width, 4 * width]
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Sequential(*convolution(a, b, 2), *convolution(b, b)) for a, b in pairs)
        self.up = nn.ModuleList(nn.Sequential(*convolution(b + a, a)) for a, b in reversed(pairs))
        self.last = nn.Conv2d(width, 1, 1)

    def forward(self, images: Tensor, maps: Tensor) -> Tensor:
        levels = [0.5 * (self.image(images) + self.map(maps))]
        for down in self.down:
            levels.append(down(levels[-1]))
        x = levels.pop()
        for up in self.up:
            level = levels.pop()
            x = up(torch.cat([upsample(x, (level.shape[2], level.shape[3])), level], 1))
        return self.last(x)  # type: ignore[no-any-return]


class PNI(BackboneDetector):
    """Map: distance to the nearest allowed entry, blurred, refined; image score: its maximum."""

    name = "pni"
    settings_type = PNISettings
    presets = {
        "paper": PNISettings(),
        # Taps, one level deeper than the paper's: by AUROC on synthetic anomalies, on mtd and screw.
        "cpu": PNISettings(
            BackboneSettings(taps=(3, 4)),
            patch=3,
            bank_size=5000,
            representatives=512,
            reduce=32,
            hidden=128,
            layers=4,
            dropout=0.1,
            epochs=4,
            batch_size=8,
            refine_width=8,
            refine_size=128,
            refine_epochs=3,
            refine_rate=1e-3,
            blur=4.0,
            positions=True,
        ),
        "tiny": PNISettings(
            BackboneSettings(taps=(2, 3), size=64),
            patch=3,
            bank_size=128,
            representatives=16,
            window=5,
            reduce=8,
            hidden=16,
            layers=3,
            dropout=0.0,
            epochs=2,
            batch_size=4,
            spread=1,
            refine_width=4,
            refine_size=32,
            refine_epochs=1,
            refine_rate=1e-3,
            blur=1.0,
        ),
    }
    info = MethodInfo(
        title="PNI",
        paper="Bae, Lee, Kim: PNI: Industrial Anomaly Detection using Position and Neighborhood Information",
        year=2023,
        venue="ICCV",
        family="memory bank, conditional on position and neighbourhood",
        needs=("frozen backbone", "synthetic anomalies for the refinement"),
        reconstructed=(
            "streaming bank",
            "one bank with the border",
            "limit on the scale of the classes",
            "refinement network and its input's scale",
        ),
        published={"MVTec AD image AUROC": 99.56, "MVTec AD pixel AUROC": 98.98, "MVTec AD AUPRO": 96.05},
    )
    settings: PNISettings
    representative: Tensor
    representative_of: Tensor
    plausible: Tensor
    axes: Tensor
    mean: Tensor
    moments: Tensor
    seen: Tensor
    scale: Tensor
    average: Tensor

    def __init__(self, settings: PNISettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s, channels, grid = settings, sum(self.backbone.channels), self.backbone.grids[0]
        entering = s.reduce or channels
        self.coreset = Coreset(s.bank_size, channels, s.growth)
        self.blur = GaussianBlur(s.blur)
        self.positions = Positions(self.size**2, s.positions)
        self.neighbourhood = Neighbourhood(entering, s)
        self.refiner = Refine(s.refine_width)
        self.register_buffer("representative", torch.zeros(s.representatives, channels))
        self.register_buffer("representative_of", torch.zeros(s.bank_size, dtype=torch.int64))
        self.register_buffer("plausible", torch.zeros(s.representatives, grid, grid))  # p(c | position)
        self.register_buffer("axes", torch.eye(channels)[:entering])  # rows: principal directions, whitened
        self.register_buffer("mean", torch.zeros(channels))
        scratch(self, "moments", torch.zeros(channels + 1, channels, dtype=torch.float64))
        scratch(self, "seen", torch.zeros((), dtype=torch.float64))
        self.register_buffer("scale", torch.ones(()))
        average = torch.full((s.patch, s.patch), 1.0 / (s.patch**2 + 1))
        average[s.patch // 2, s.patch // 2] *= 2  # the closed form of the published pooling of flattened patches
        self.register_buffer("average", average[None, None], persistent=False)

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, table = self.settings, data.features(self.backbone)
        yield OnePass("coreset", table, self._offer, self._represent, grows=True)
        yield OnePass("positions", table, self._count, self._smooth)
        if s.neighbourhood:
            yield Optimise(
                "neighbourhood",
                table,
                self.neighbourhood_loss,
                list(self.neighbourhood.parameters()),
                partial(torch.optim.Adam, lr=s.learning_rate),
                epochs=s.epochs,
                batch_size=s.batch_size,
                schedule=lambda done: 0.1 ** int(3 * done),  # a tenth after each third, as published
                select=False,
            )
        if s.refine:
            yield OnePass("scale", table, self._raise_scale, lambda: None)
            pool = data.anomalies(s.strategies, self.size)  # at the size of what is scored: as fine as that
            yield Optimise(
                "refinement",
                Together(self.inputs(pool), pool.masks(s.refine_size)),
                self.refine_loss,
                list(self.refiner.parameters()),
                partial(torch.optim.Adam, lr=s.refine_rate),
                epochs=s.refine_epochs,
                batch_size=s.batch_size,
                select=False,
            )
        yield from self.positions.phases(self.inputs(data), self._refined)

    def inputs(self, data: Images) -> Together:
        return Together(data.features(self.backbone), data.pixels(self.settings.refine_size))

    @property
    def sizes(self) -> tuple[int, int]:
        """That of the backbone, and that of the refinement."""
        return self.size, self.settings.refine_size

    def prepare(self, pictures: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        return self.backbone(pictures[0]), pictures[1]

    def embed(self, features: list[Tensor]) -> Tensor:
        """Local means of all taps on the finest grid: (B, C, h, w)."""
        p, first = self.settings.patch, features[0]
        weight = self.average.expand(first.shape[1], -1, -1, -1)
        local = F.conv2d(first, weight, padding=p // 2, groups=first.shape[1])
        deep = [upsample(F.avg_pool2d(f, p, 1, p // 2), (first.shape[2], first.shape[3])) for f in features[1:]]
        return torch.cat([local, *deep], 1)

    def _rows(self, features: list[Tensor]) -> Tensor:
        embedded = self.embed(features)
        return embedded.permute(0, 2, 3, 1).reshape(-1, embedded.shape[1])

    def _offer(self, features: list[Tensor]) -> None:
        rows = self._rows(features)
        self.coreset.offer(rows)
        exact = rows.double()
        self.moments += torch.cat([exact.sum(0, keepdim=True), exact.T @ exact])
        self.seen += len(rows)

    def _represent(self) -> None:
        """Choose the representatives and link every entry to its nearest; principal directions of the features."""
        known = self.coreset.known()
        chosen = known[farthest_first(known, self.settings.representatives)]
        self.representative.fill_(FAR)
        self.representative[: len(chosen)] = chosen
        self.representative_of[: len(known)] = nearest(known, chosen)[1]
        mean = self.moments[0] / self.seen
        values, vectors = torch.linalg.eigh(self.moments[1:] / self.seen - mean[:, None] * mean)
        top = slice(-len(self.axes), None)
        self.mean.copy_(mean)
        self.axes.copy_((vectors[:, top] / values[top].clamp_min(1e-12).sqrt()).T)

    def _nearest_representative(self, features: list[Tensor]) -> Tensor:
        """Index of the representative nearest to every patch: (B, h, w)."""
        index = nearest(self._rows(features), self.representative)[1]
        return index.view(-1, *features[0].shape[-2:])

    def _count(self, features: list[Tensor]) -> None:
        index = self._nearest_representative(features)
        for image in index:
            self.plausible.view(len(self.plausible), -1).scatter_add_(
                0, image.flatten()[None], torch.ones(1, image.numel(), device=image.device)
            )

    def _smooth(self) -> None:
        """Every count also stands for the cells around it; then p(c | position)."""
        side = 2 * self.settings.spread + 1
        near = F.avg_pool2d(self.plausible[None], side, 1, side // 2)[0]
        self.plausible.copy_(near / near.sum(0, keepdim=True).clamp_min(1e-12))

    def _reduced(self, embedded: Tensor) -> Tensor:
        """What the classifier sees: (B, reduce, h, w)."""
        centred = embedded - self.mean.view(1, -1, 1, 1)
        return F.conv2d(centred, self.axes[:, :, None, None])

    def neighbourhood_loss(self, features: list[Tensor]) -> Tensor:
        """Cross-entropy of the representative nearest to the hidden centre; the padded border is left out."""
        logits = self.neighbourhood(self._reduced(self.embed(features)))
        return F.cross_entropy(logits[:, :, 2:-2, 2:-2], self._nearest_representative(features)[:, 2:-2, 2:-2])

    def plausibility(self, embedded: Tensor) -> Tensor:
        """p(c | neighbourhood, position), (B, M, h, w): the mean of what is switched on."""
        s, parts = self.settings, []
        if s.neighbourhood:
            parts.append((self.neighbourhood(self._reduced(embedded)) / s.temperature).softmax(1))
        if s.position:
            parts.append(self.plausible[None].expand(embedded.shape[0], -1, -1, -1))
        if not parts:
            return torch.ones_like(embedded[:, :1]).expand(-1, s.representatives, -1, -1)
        return torch.stack(parts).mean(0)

    def distance(self, features: list[Tensor]) -> Tensor:
        """To the nearest allowed entry of the bank: (B, 1, h, w)."""
        embedded = self.embed(features)
        b, c, h, w = embedded.shape
        rows = embedded.permute(0, 2, 3, 1).reshape(-1, c)
        likely = self.plausibility(embedded).transpose(0, 1).flatten(1)  # (classes, positions)
        # tau of the paper; where nothing reaches it, the most plausible class is allowed.
        tau = likely.amax(0).clamp_max(0.5 / self._alike)
        hidden = torch.where(likely >= tau, 0.0, EMPTY)
        # One pass over (entries, positions): what a class hides is copied in whole rows, and the product adds to it.
        bank = self.coreset.searched()
        entries = torch.cat([-2 * bank, bank.square().sum(1, keepdim=True)], 1)
        out = hidden[self.representative_of[: len(bank)]]
        least = torch.addmm(out, entries, F.pad(rows, (0, 1), value=1.0).T).amin(0)
        return (least + rows.square().sum(1)).clamp_min(0).sqrt().view(b, 1, h, w)

    @property
    def _alike(self) -> Tensor:
        """Of how many the limit is half of an even share."""
        count = self.coreset.count
        return count if self.settings.limit == "entries" else count.clamp_max(self.settings.representatives)

    def _raise_scale(self, features: list[Tensor]) -> None:
        """The largest value of the map on a fit normal: the unit in which the refinement sees maps."""
        self.scale.copy_(torch.maximum(self.scale, self._coarse(features, (self.size, self.size)).max()))

    def _coarse(self, features: list[Tensor], size: tuple[int, int]) -> Tensor:
        return self.blur(self.distance(features), size)  # type: ignore[no-any-return]

    def refine_loss(self, batch: tuple[tuple[list[Tensor], Tensor], Tensor]) -> Tensor:
        """Squared error of the refined map against the mask, and of its two gradients (weights 1/2, 1/4, 1/4)."""
        (features, images), masks = batch
        with torch.no_grad():
            maps = self._small(self._coarse(features, (self.size, self.size)))
        off = maps + self.refiner(images, maps) - masks
        parts = (0.5, off), (0.25, off.diff(dim=2)), (0.25, off.diff(dim=3))
        return torch.stack([weight * part.square().mean() for weight, part in parts]).sum()

    def score(self, inputs: tuple[list[Tensor], Tensor], size: tuple[int, int]) -> Scores:
        own = self.positions(self._refined(inputs))
        return Scores(own.flatten(1).max(1).values, upsample(own, size))

    def _refined(self, inputs: tuple[list[Tensor], Tensor]) -> Tensor:
        """The map at the size of the backbone's input, with a share of its refinement: (B, 1, size, size)."""
        features, images = inputs
        own = self._coarse(features, (self.size, self.size))
        return own + self.settings.refine_share * self._residual(images, own) if self.settings.refine else own

    def _small(self, maps: Tensor) -> Tensor:
        """Maps as the refinement sees them, in learning and in scoring: (B, 1, refine_size, refine_size)."""
        return upsample(maps, (self.settings.refine_size, self.settings.refine_size)) / self.scale

    def _residual(self, images: Tensor, maps: Tensor) -> Tensor:
        """What refinement adds, in the unit of the map."""
        refined = self.refiner(images, self._small(maps))
        return upsample(refined, (maps.shape[2], maps.shape[3])) * self.scale
