"""PRN: what differs from the nearest prototype of a normal image, segmented (Zhang et al., CVPR 2023).

Prototypes are whole feature maps, centres of k-means over the fit normals, per scale. Features and their squared
difference from the nearest prototype are exchanged between scales, go through self-attention over patches of several
sizes and into a decoder.
The published setting learns from real anomalies ("extended" by variation) and simulated ones. Without labelled
anomalies in the split this is the unsupervised variant: simulated ones alone.
Ours (a setting each where it is a number): the projection to queries, keys and values; in the ``cpu`` preset narrower
maps, logits at half the resolution and wide anomalies (``shade``) beside the two published kinds.
Memory after fit: the prototypes, each the sum of C h w over three scales in float32, e.g. 40 x 172,032 x 4 B = 27 MB,
and the networks.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn

from components.backbones.extractor import BackboneSettings
from components.detectors.contract import (
    Chosen,
    FeatureDetector,
    MethodInfo,
    OnePass,
    Optimise,
    Phase,
    Scores,
    Table,
    Together,
    TrainingData,
    pictures_of,
)
from components.detectors.parts.blocks import anomaly_head, focal, nearest, upsample
from components.detectors.parts.convolutions import Decoder, convolution

SCALES = 3
ROWS = (
    1000  # turned and mirrored pictures and all, at the most, that prototypes are made of: k-means is quadratic in them
)
CHUNK = 128  # images whose maps are in memory at once while prototypes are made
FAR = 1e4  # rows that hold no prototype are far from every map


@dataclass(frozen=True)
class PRNSettings:
    """Settings; of the taps the first three are the scales, each at half the side of the one before, the last the code.

    *strategies* are the simulated anomalies; extended ones take half of the places when there are labelled anomalies.
    """

    RETIRED: ClassVar[dict[str, str]] = {"grey": "anomalies never have more colour than their image"}

    backbone: BackboneSettings = BackboneSettings("resnet18", (1, 2, 3, 4), 256)
    prototypes: float = 0.1  # share of the number of fit normals
    most: int = 100  # of the prototypes, at most: what the published share is of ROWS
    iterations: int = 300  # of k-means, at most
    widths: tuple[int, ...] = (128, 256, 512)  # channels per scale in the attention, finest first
    patches: tuple[int, ...] = (1, 2, 4, 8)  # patches per side in the attention: s, s/2, s/4, s/8 for maps of side s
    blocks: int = 3  # of attention per scale
    decoder: tuple[int, ...] = (64, 128, 256)  # channels of the decoder, finest first
    stride: int = 1  # side of a pixel of the logits in pixels of the backbone's input
    residual: bool = True  # False: the difference from the prototype is left out
    strategies: tuple[str, ...] = ("heterologous", "homologous")
    copies: int = 1  # anomalies per fit normal, drawn once
    focal: float = 5.0  # weight of the focal loss beside the smooth L1 loss
    alpha: float = 0.5  # of the focal loss
    gamma: float = 4.0  # of the focal loss
    top: int = 100  # pixels whose mean is the image score
    epochs: int = 700
    batch_size: int = 32  # pairs of a normal image and an anomalous one
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    cosine: bool = False  # the rate falls along half a cosine


class Pointwise(nn.Conv2d):
    """A 1 x 1 convolution; a training step computes it as a product of matrices.

    For fewer than 16 images on one thread torch leaves oneDNN for a path of its own, with copies to another layout.
    """

    def __init__(self, entering: int, leaving: int, bias: bool = True) -> None:
        super().__init__(entering, leaving, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:  # a graph keeps its convolution
            return super().forward(x)
        return F.linear(x.movedim(1, 3), self.weight.flatten(1), self.bias).movedim(3, 1)


class Exchange(nn.Module):
    """Every scale gets what all scales say: the sum of itself, coarser ones upsampled and finer ones strided."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.paths = nn.ModuleList(
            nn.ModuleList(_path(channels[j], channels[i], i - j) for j in range(len(channels)))
            for i in range(len(channels))
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        found = []
        for own, paths in zip(maps, self.paths, strict=True):
            size = (own.shape[2], own.shape[3])
            moved = [path(x) for path, x in zip(paths, maps, strict=True)]  # type: ignore[call-overload]
            found.append(torch.stack([m if m.shape[2:] == own.shape[2:] else upsample(m, size) for m in moved]).sum(0))
        return found


def _path(entering: int, leaving: int, steps: int) -> nn.Module:
    """Down by *steps* halvings with a strided convolution (3 x 3 or 5 x 5); up: 1 x 1, upsampled behind it."""
    if steps == 0:
        return nn.Identity()
    if steps < 0:
        return nn.Sequential(Pointwise(entering, leaving, bias=False), nn.BatchNorm2d(leaving))
    side = 2 * steps + 1
    return nn.Sequential(nn.Conv2d(entering, leaving, side, 2**steps, side // 2, bias=False), nn.BatchNorm2d(leaving))


class Attention(nn.Module):
    """Self-attention between the patches of a map, for several patch sizes at once: (B, C, h, w) -> the same."""

    def __init__(self, channels: int, patches: Sequence[int]) -> None:
        super().__init__()
        self.patches = tuple(patches)
        # One projection per patch size, the same at all positions; a dense one of whole patches would be huge.
        # A single patch attends to itself alone: its value is all there is to it.
        self.project = nn.ModuleList(Pointwise(channels, (3 if n > 1 else 1) * channels) for n in patches)
        self.path = nn.Sequential(
            *convolution(len(patches) * channels, channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = Pointwise(len(patches) * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        sizes = [_attended(project(x), n) for project, n in zip(self.project, self.patches, strict=True)]
        x = torch.cat(sizes, 1)
        return F.relu(self.path(x) + self.shortcut(x))


def _attended(projected: Tensor, n: int) -> Tensor:
    """Queries, keys and values (B, 3C, h, w), cut into n x n patches that attend to each other: (B, C, h, w).

    Of a single patch *projected* is its value, (B, C, h, w).
    """
    if n == 1:
        return projected
    c, h, w = projected.shape[1] // 3, projected.shape[2] // n, projected.shape[3] // n
    cut = projected.movedim(1, 3).reshape(-1, n, h, n, w, 3, c).permute(5, 0, 1, 3, 2, 4, 6)  # as the maps lie
    queries, keys, values = cut.reshape(3, -1, n * n, h * w * c).unbind(0)
    weights = (queries @ keys.transpose(1, 2) / math.sqrt(queries.shape[2])).softmax(2)
    mixed = (weights @ values).reshape(-1, n, n, h, w, c)
    return mixed.permute(0, 1, 3, 2, 4, 5).reshape(-1, n * h, n * w, c).movedim(3, 1)


class PRN(FeatureDetector):
    """Map: probability of the segmentation; image score: mean of its largest pixels."""

    name = "prn"
    settings_type = PRNSettings
    presets = {
        "paper": PRNSettings(),
        "cpu": PRNSettings(
            BackboneSettings(taps=(1, 2, 3, 4)),
            widths=(16, 24, 32),
            blocks=1,
            decoder=(12, 24, 32),
            stride=2,
            strategies=("heterologous", "homologous", "shade"),
            copies=2,
            epochs=6,
            batch_size=4,
            learning_rate=2e-3,
            weight_decay=1e-4,
            cosine=True,
        ),
        "tiny": PRNSettings(
            BackboneSettings(taps=(1, 2, 3, 4), size=64),
            most=4,
            widths=(8, 8, 8),
            blocks=1,
            decoder=(8, 8, 8),
            stride=2,
            copies=2,
            epochs=3,
            batch_size=4,
            learning_rate=1e-2,
            cosine=True,
        ),
    }
    info = MethodInfo(
        title="PRN",
        paper="Zhang, Wu, Wang, Chen, Jiang: Prototypical Residual Networks for Anomaly Detection and Localization",
        year=2023,
        venue="CVPR",
        family="prototypes, synthetic anomalies and segmentation",
        needs=("frozen backbone", "synthetic anomalies", "labelled anomalies in the published variant"),
        reconstructed=("projection of the attention", "normalisation in the fusion between scales"),
        published={
            "mvtec image AUROC": 0.994,
            "mvtec pixel AUROC": 0.990,
            "mvtec AUPRO": 0.961,
            "mvtec pixel AP": 0.786,
        },
    )
    settings: PRNSettings

    def __init__(self, settings: PRNSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s = settings
        channels, code = self.backbone.channels[:SCALES], self.backbone.channels[SCALES]
        grids = self.backbone.grids[:SCALES]
        for i, (c, g) in enumerate(zip(channels, grids, strict=True)):
            self.register_buffer(f"bank{i}", torch.full((s.most, c * g * g), FAR))
        # Features and residuals of all scales are brought to one range before they are summed.
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in (*channels, *channels))
        self.features, self.residuals = Exchange(channels), Exchange(channels)
        self.enter = nn.ModuleList(
            nn.Sequential(Pointwise(2 * c, w, bias=False), nn.BatchNorm2d(w), nn.ReLU())
            for c, w in zip(channels, s.widths, strict=True)
        )
        self.attention = nn.ModuleList(
            nn.Sequential(*(Attention(w, [n for n in s.patches if g % n == 0]) for _ in range(s.blocks)))
            for w, g in zip(s.widths, grids, strict=True)
        )
        self.fusion = Exchange(s.widths)
        self.code = nn.Sequential(*convolution(code, s.decoder[-1]))
        self.decoder = Decoder([s.decoder[-1], *s.decoder[::-1]], s.widths[::-1])
        half = max(8, s.decoder[0] // 2)
        self.last, self.head = nn.Sequential(*convolution(s.decoder[0], half)), anomaly_head(half)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # faster on CPU

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, normals = self.settings, data.features(self.backbone)
        yield OnePass("prototypes", normals, lambda _: None, partial(self._cluster, normals), held=CHUNK)
        pool = data.anomalies(self.kinds(data.labelled(self.size) is not None), self.size, s.copies)
        yield Optimise(
            "segmentation",
            Together(pool.before(self.backbone), pool.features(self.backbone), pool.masks(self.size // s.stride)),
            self.loss,
            [p for p in self.parameters() if p.requires_grad],
            partial(torch.optim.Adam, lr=s.learning_rate, weight_decay=s.weight_decay),
            epochs=s.epochs,
            batch_size=s.batch_size,
            schedule=self.factor,
        )

    def kinds(self, labelled: bool) -> tuple[str, ...]:
        """The strategies in turn; with labelled anomalies every other one is ``extended``, half of all as published."""
        simulated = self.settings.strategies
        return tuple(name for kind in simulated for name in ("extended", kind)) if labelled else simulated

    def factor(self, done: float) -> float:
        """On the learning rate, at the *done* share of the training."""
        return 0.5 * (1 + math.cos(math.pi * done)) if self.settings.cosine else 1.0

    def banks(self) -> list[Tensor]:
        """Per scale the prototypes (most, C * h * w)."""
        return [self.get_buffer(f"bank{i}") for i in range(SCALES)]

    def deviations(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Per scale the squared difference from the prototype nearest to the whole map: (B, C, h, w)."""
        found = []
        for bank, x in zip(self.banks(), maps, strict=True):
            index = nearest(x.flatten(1), bank)[1]
            found.append((x - bank[index].reshape(x.shape)).square())
        return found

    def logits(self, features: list[Tensor]) -> Tensor:
        """(B, 1, H, W) at the input size over *stride*."""
        *maps, code = features
        both = [norm(x) for norm, x in zip(self.norms, (*maps, *self.deviations(maps)), strict=True)]
        plain, apart = self.features(both[:SCALES]), self.residuals(both[SCALES:])
        if not self.settings.residual:
            apart = [torch.zeros_like(x) for x in apart]
        joined = [torch.cat(pair, 1) for pair in zip(plain, apart, strict=True)]
        attended = [a(e(x)) for a, e, x in zip(self.attention, self.enter, joined, strict=True)]
        finest = self.decoder(self.code(code), self.fusion(attended)[::-1])[-1]
        side = self.size // self.settings.stride
        return self.head(self.last(upsample(finest, (side, side))))  # type: ignore[no-any-return]

    def loss(self, batch: tuple[list[Tensor], list[Tensor], Tensor]) -> Tensor:
        """Smooth L1 of the probabilities and the focal loss, over as many normal images as anomalous ones."""
        normal, anomalous, masks = batch
        logits = self.logits([torch.cat(pair) for pair in zip(normal, anomalous, strict=True)])
        target = torch.cat([torch.zeros_like(masks), masks])
        s = self.settings
        return F.smooth_l1_loss(logits.sigmoid(), target) + s.focal * focal(logits, target, s.gamma, s.alpha)

    def score(self, features: list[Tensor], size: tuple[int, int]) -> Scores:
        found = self.logits(features).sigmoid()
        own = upsample(found, (self.size, self.size)).flatten(1)
        return Scores(own.topk(min(self.settings.top, own.shape[1])).values.mean(1), upsample(found, size))

    def _cluster(self, table: Table) -> None:
        """Fill the banks with the centres of the fit normals' maps, each scale by itself."""
        table = _fewer(table)
        count = max(1, min(self.settings.most, round(self.settings.prototypes * len(table))))
        labels = [_clusters(gram, count, self.settings.iterations) for gram in _grams(table)]
        sums = [torch.zeros((count, bank.shape[1])) for bank in self.banks()]
        for rows, maps in _maps(table):
            for total, x, found in zip(sums, maps, labels, strict=True):
                total.index_add_(0, found[rows.start : rows.stop], x)
        for i, (total, found) in enumerate(zip(sums, labels, strict=True)):
            members = found.bincount(minlength=count)
            centres = total[members > 0] / members[members > 0, None]
            self._hold(i, len(centres)).copy_(centres)

    def _hold(self, scale: int, count: int) -> Tensor:
        """The bank of a scale, made to hold *count* prototypes: a model is as large as what it has learned."""
        bank = self.get_buffer(f"bank{scale}")
        if len(bank) != count:
            with torch.inference_mode(False):  # a phase ends inside of it; what it made could not be loaded into later
                bank = torch.full((count, bank.shape[1]), FAR, device=bank.device)
            self.register_buffer(f"bank{scale}", bank)
        return bank

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        for i in range(SCALES):
            if (kept := state_dict.get(f"{prefix}bank{i}")) is not None:
                self._hold(i, len(kept))
        super()._load_from_state_dict(state_dict, prefix, *others)


def _fewer(table: Table) -> Table:
    """*table*, or of one with more than ROWS rows as many pictures, in whatever poses."""
    count = max(pictures_of(table), ROWS)
    if len(table) <= count:
        return table
    drawn = torch.randperm(len(table), generator=torch.Generator().manual_seed(0))[:count]
    return Chosen(table, drawn.sort().values.tolist())


def _maps(table: Table) -> Iterator[tuple[range, list[Tensor]]]:
    """The rows of a chunk and its maps per scale, (n, C * h * w)."""
    for start in range(0, len(table), CHUNK):
        rows = range(start, min(start + CHUNK, len(table)))
        yield rows, [x.flatten(1) for x in table.take(rows)[:SCALES]]


def _grams(table: Table) -> list[np.ndarray]:
    """Per scale the inner products of all images' maps (N, N): all that k-means needs of 100,000 dimensions."""
    grams = [np.zeros((len(table), len(table))) for _ in range(SCALES)]
    for rows, maps in _maps(table):
        for others, again in _maps(table):
            if others.start > rows.start:
                break
            for gram, one, two in zip(grams, maps, again, strict=True):
                block = (one @ two.T).double().numpy()
                gram[rows.start : rows.stop, others.start : others.stop] = block
                gram[others.start : others.stop, rows.start : rows.stop] = block.T
    return grams


def _clusters(gram: np.ndarray, count: int, iterations: int) -> Tensor:
    """The cluster of each image (N,), by k-means on coordinates that have the inner products *gram*."""
    values, vectors = np.linalg.eigh(gram)
    coordinates = vectors * np.sqrt(values.clip(0))
    found = KMeans(count, max_iter=iterations, n_init=1, random_state=0).fit(coordinates)
    return torch.from_numpy(found.labels_).long()
