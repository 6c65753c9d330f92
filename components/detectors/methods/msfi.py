"""Multi-scale feature imitation with a search for what matters (Hu, 2022, arXiv 2212.05786; "MFI").

Separate student blocks imitate a frozen teacher stage by stage, on an image pyramid and a feature pyramid; afterwards
one weight per block is learned by gradient descent as a task of its own, and blocks of small weight are cut out.
Reconstructed: everything numeric, the form of the blocks, the loss of the search (only the abstract was within reach).
Memory after fit: the blocks that were kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

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
    epochs_of,
    scratch,
)
from components.detectors.parts.blocks import GaussianBlur, Positions, focal, upsample
from components.detectors.parts.convolutions import Residual, convolution

COARSER = 4  # the search sees maps of a quarter of the side


@dataclass(frozen=True)
class MSFISettings:
    """Settings; *scales* (of the backbone's size) make the image pyramid, taps behind the first the feature pyramid."""

    backbone: BackboneSettings = BackboneSettings("resnet18", (0, 1, 2, 3), 256)
    scales: tuple[float, ...] = (1.0, 0.5, 0.25)
    smallest: int = 8  # side of the coarsest grid that gets a block
    width: int = 128  # of a block
    epochs: int = 100
    draws: int = 0  # ours: at least so many images in all epochs, so that few images get more epochs
    batch_size: int = 32
    learning_rate: float = 1e-3
    search_epochs: int = 10  # 0: equal weights, nothing is cut
    search_rate: float = 1e-2
    search: Literal["pixels", "images"] = "pixels"  # what the weights are to tell apart; pixels prefer the finest block
    entropy: float = 0.05  # weight of the entropy of the weights: small ones are pushed towards zero
    cut: float = 0.5  # blocks whose weight is below this share of an equal weight are cut
    strategies: tuple[str, ...] = ("perlin_texture", "perlin_self", "cutpaste", "scar")
    blur: float = 4.0
    positions: bool = False  # ours: each position of the map by its mean and deviation on the fit normals


class Block(nn.Module):
    """A student of one phase: what the teacher's phase before gives -> an imitation of what the phase gives."""

    def __init__(self, entering: int, leaving: int, width: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            *convolution(entering, width, stride=2), Residual(width), Residual(width), nn.Conv2d(width, leaving, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.path(x)  # type: ignore[no-any-return]


class MSFI(BackboneDetector):
    """Map: weighted sum of the blocks' standardised distances, blurred; image score: its maximum."""

    name = "msfi"
    settings_type = MSFISettings
    presets = {
        "paper": MSFISettings(),
        # Taps, one level deeper than the paper's: by AUROC on synthetic anomalies; a quarter of the cost, too.
        "cpu": MSFISettings(
            BackboneSettings(taps=(1, 2, 3, 4)),
            width=32,
            epochs=10,
            draws=6000,
            batch_size=16,
            search_epochs=3,
            positions=True,
        ),
        "tiny": MSFISettings(
            BackboneSettings(taps=(0, 1, 2), size=64),
            scales=(1.0, 0.5),
            width=16,
            epochs=3,
            batch_size=4,
            learning_rate=1e-2,
            search_epochs=2,
            search_rate=0.3,
            blur=1.0,
        ),
    }
    info = MethodInfo(
        title="Multi-scale feature imitation",
        paper="Hu: Multi-scale Feature Imitation for Unsupervised Anomaly Localization",
        year=2022,
        venue="arXiv 2212.05786",
        family="knowledge distillation",
        needs=("frozen backbone", "synthetic anomalies for the search"),
        reconstructed=("blocks", "losses", "all numbers"),
    )
    settings: MSFISettings
    weights: Tensor
    centre: Tensor
    spread: Tensor
    sums: Tensor

    def __init__(self, settings: MSFISettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        self.places = tuple(self._places())
        channels = self.backbone.channels
        self.blocks = nn.ModuleList(Block(channels[t - 1], channels[t], settings.width) for _, t in self.places)
        count = len(self.places)
        self.importance = nn.Parameter(torch.zeros(count))
        self.slope, self.shift = nn.Parameter(torch.ones(())), nn.Parameter(torch.full((), -3.0))
        self.blur, self.blur_coarse = GaussianBlur(settings.blur), GaussianBlur(settings.blur / COARSER)
        self.positions = Positions(self.size**2, settings.positions)
        self.register_buffer("weights", torch.full((count,), 1.0 / count))
        self.register_buffer("centre", torch.zeros(count))
        self.register_buffer("spread", torch.ones(count))
        scratch(self, "sums", torch.zeros(3, count, dtype=torch.float64))
        self.kept = tuple(range(count))
        self.register_load_state_dict_post_hook(lambda module, _: module.keep())

    def _places(self) -> Iterable[tuple[int, int]]:
        """(scale, tap) of every block; grids below ``smallest`` say nothing and are dropped."""
        for number, size in enumerate(self.sizes):
            for tap, grid in enumerate(self.backbone.at(size).grids):
                if tap and grid >= self.settings.smallest:
                    yield number, tap

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sides in pixels of the image pyramid."""
        return tuple(int(self.size * scale) for scale in self.settings.scales)

    def inputs(self, data: Images) -> Together:
        return Together(*(data.features(self.backbone.at(size)) for size in self.sizes))

    def prepare(self, pictures: Sequence[Tensor]) -> list[list[Tensor]]:
        return [self.backbone.at(size)(p) for size, p in zip(self.sizes, pictures, strict=True)]

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, table = self.settings, self.inputs(data)
        yield Optimise(
            "imitation",
            table,
            self.loss,
            list(self.blocks.parameters()),
            partial(torch.optim.Adam, lr=s.learning_rate),
            epochs=epochs_of(table, s.epochs, s.draws),
            batch_size=s.batch_size,
        )
        yield OnePass("standardise", table, self._add, self._standardise, sums=True)
        if s.search_epochs:
            pool = data.anomalies(s.strategies, self.size)
            normals = (table,) if s.search == "images" else ()
            yield Optimise(
                "importance",
                Together(self.inputs(pool), pool.masks(self.sizes[0] // COARSER), *normals),
                self.search_loss,
                [self.importance, self.slope, self.shift],
                partial(torch.optim.Adam, lr=s.search_rate),
                epochs=s.search_epochs,
                batch_size=s.batch_size,
                select=False,
            )
            yield OnePass("cut", table, lambda _: None, self._cut)
        yield from self.positions.phases(table, self._own)

    def distances(self, inputs: list[list[Tensor]]) -> dict[int, Tensor]:
        """1 - cosine of teacher and student for every block that is kept: (B, 1, h, w) each."""
        found = {}
        for i in self.kept:
            scale, tap = self.places[i]
            # Each block reads the teacher, not the block before: none depends on another, so any can be cut.
            imitated = self.blocks[i](inputs[scale][tap - 1])
            found[i] = 1 - F.cosine_similarity(inputs[scale][tap], imitated, dim=1)[:, None]
        return found

    def loss(self, inputs: list[list[Tensor]]) -> Tensor:
        """Sum over the blocks of the mean distance."""
        return torch.stack([d.mean() for d in self.distances(inputs).values()]).sum()

    def standardised(self, inputs: list[list[Tensor]]) -> dict[int, Tensor]:
        """Distances in deviations above the mean of the normals; below it is zero."""
        return {i: F.relu((d - self.centre[i]) / self.spread[i]) for i, d in self.distances(inputs).items()}

    def _add(self, inputs: list[list[Tensor]]) -> None:
        for i, d in self.distances(inputs).items():
            values = d.double()
            self.sums[:, i] += torch.stack(
                [torch.full_like(values.sum(), values.numel()), values.sum(), values.square().sum()]
            )

    def _standardise(self) -> None:
        mean = self.sums[1] / self.sums[0].clamp_min(1)
        self.centre.copy_(mean)
        self.spread.copy_((self.sums[2] / self.sums[0].clamp_min(1) - mean.square()).clamp_min(1e-12).sqrt())

    def search_loss(self, batch: Sequence[Any]) -> Tensor:
        """What the weighted map of synthetic anomalies is worth, and the entropy of the weights.

        pixels: focal loss against the masks; images: logistic loss of the image score, anomalies beside normals.
        """
        forged, masks, *normals = batch
        weights, size = self.importance.softmax(0), (masks.shape[2], masks.shape[3])
        entropy = -(weights * weights.clamp_min(1e-12).log()).sum()
        maps = [self._weighed(inputs, weights, size) for inputs in (forged, *normals)]
        if self.settings.search == "pixels":
            loss = focal(self.slope * maps[0] + self.shift, masks)
        else:
            found, passed = (self.slope * self.blur_coarse(m).amax((1, 2, 3)) + self.shift for m in maps)
            loss = F.softplus(-found).mean() + F.softplus(passed).mean()
        return loss + self.settings.entropy * entropy

    def _weighed(self, inputs: list[list[Tensor]], weights: Tensor, size: tuple[int, int]) -> Tensor:
        with torch.no_grad():
            maps = {i: upsample(d, size) for i, d in self.standardised(inputs).items()}
        return torch.stack([weights[i] * d for i, d in maps.items()]).sum(0)

    def _cut(self) -> None:
        weights = self.importance.softmax(0)
        weights = torch.where(weights < self.settings.cut / len(weights), 0.0, weights)
        self.weights.copy_(weights / weights.sum())
        self.keep()

    def keep(self) -> None:
        """Make the blocks with a weight the ones that run; called after the cut and after loading."""
        self.kept = tuple(int(i) for i in self.weights.nonzero().flatten())

    def score(self, inputs: list[list[Tensor]], size: tuple[int, int]) -> Scores:
        own = self.positions(self._own(inputs))
        return Scores(own.flatten(1).max(1).values, upsample(own, size))

    def _own(self, inputs: list[list[Tensor]]) -> Tensor:
        """The weighted sum of the blocks' maps, blurred: (B, 1, size, size)."""
        size = (self.size, self.size)
        maps = self.standardised(inputs).items()
        return torch.stack([self.weights[i] * self.blur(d, size) for i, d in maps]).sum(0)
