"""PatchCore: nearest neighbours in a coreset of normal patch features (Roth et al., CVPR 2022); the reference baseline.

Differs from the paper: the coreset is built while streaming, under an absolute cap (``coreset.py``), so memory and time
are known before training. Preset ``cpu`` searches it by lists (``lists.py``).
Memory after fit: bank_size x channels float32, e.g. 10,000 x 152 x 4 B = 6 MB; while fitting, one block of
chunk x bank_size distances more.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from components.backbones.extractor import BackboneSettings
from components.detectors.contract import FeatureDetector, MethodInfo, OnePass, Phase, Scores, TrainingData
from components.detectors.parts.blocks import GaussianBlur, distance, nearest, squared_distances, upsample
from components.detectors.parts.coreset import Coreset
from components.detectors.parts.lists import AGAIN, Lists


@dataclass(frozen=True)
class PatchCoreSettings:
    """Settings; *reweighting* is the number of neighbours b of the paper's eq. 7 (0: the plain maximum)."""

    backbone: BackboneSettings = BackboneSettings(taps=(2, 3))
    bank_size: int = 10_000
    patch: int = 3  # side of the neighbourhood that is averaged (paper, section 3.1)
    reweighting: int = 9
    growth: float = 1.08  # factor on the radius when the bank is full; smaller keeps the bank fuller and fits slower
    blur: float = 4.0  # sigma in input pixels (paper, section 3.3)
    lists: int = 0  # of an inverted file over the bank; 0: all rows are visited
    probes: int = 6  # lists that are visited
    # Of these only the ones about as near as the nearest (lists.py); of .25, .5 and .75 the least that leaves 98 % of
    # patches as they are. 0: all.
    reach: float = 0.0


class PatchCore(FeatureDetector):
    """Raw image score: distance of the farthest patch, re-weighted; map: the distances of all patches."""

    name = "patchcore"
    settings_type = PatchCoreSettings
    averages_sizes = True
    turned = False  # a full bank has no room for what it finds as normal already (docs/adr/0062)
    presets = {
        "paper": PatchCoreSettings(BackboneSettings("wide_resnet50_2", (2, 3), 224), bank_size=100_000),
        "cpu": PatchCoreSettings(lists=32, probes=8, reach=0.5),
        "tiny": PatchCoreSettings(BackboneSettings(taps=(2, 3), size=64), bank_size=128, blur=1.0),
    }
    info = MethodInfo(
        title="PatchCore",
        paper="Roth, Pemula, Zepeda, Schölkopf, Brox, Gehler: Towards Total Recall in Industrial Anomaly Detection",
        year=2022,
        venue="CVPR",
        family="memory bank",
        needs=("frozen backbone",),
        reconstructed=("streaming coreset under an absolute cap in place of greedy selection over all patches",),
    )
    neighbours: Tensor
    settings: PatchCoreSettings

    def __init__(self, settings: PatchCoreSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        depth = max(1, settings.reweighting)
        self.blur = GaussianBlur(settings.blur)
        self.coreset = Coreset(settings.bank_size, sum(self.backbone.channels), settings.growth)
        asked = settings.lists, settings.probes, settings.reach
        self.lists = Lists(settings.bank_size, sum(self.backbone.channels), *asked) if settings.lists else None
        self.register_buffer("neighbours", torch.zeros((settings.bank_size, depth), dtype=torch.int64))

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        yield OnePass("coreset", data.features(self.backbone), self._offer_features, self._link, grows=True)

    def embed(self, features: list[Tensor]) -> Tensor:
        """Locally averaged features of all taps on the finest grid: (B, C, h, w)."""
        pooled = [F.avg_pool2d(f, self.settings.patch, 1, self.settings.patch // 2) for f in features]
        h, w = pooled[0].shape[-2:]
        return torch.cat([pooled[0], *(upsample(p, (h, w)) for p in pooled[1:])], 1)

    def score(self, features: list[Tensor], size: tuple[int, int]) -> Scores:
        embedded = self.embed(features)
        b, _, h, w = embedded.shape
        rows = embedded.flatten(2).transpose(1, 2)
        distances = self.distances(rows)
        own = self.blur(distances.reshape(b, 1, h, w), (self.size, self.size))  # sigma is of this size
        return Scores(self._image_score(rows, distances), upsample(own, size))

    def distances(self, rows: Tensor) -> Tensor:
        """Of each patch (B, N, C) to the bank: (B, N); by lists, but of the farthest of a picture in the whole bank."""
        bank = self.coreset.searched()
        flat = rows.flatten(0, 1)
        if self.lists is None:
            return distance(flat, bank).view(rows.shape[:2])
        found = self.lists.distance(flat, bank).view(rows.shape[:2])
        at = found.topk(min(AGAIN, rows.shape[1]), dim=1).indices
        farthest = rows.gather(1, at[..., None].expand(-1, -1, rows.shape[2]))
        return found.scatter(1, at, distance(farthest.flatten(0, 1), bank).view(at.shape))

    def _image_score(self, rows: Tensor, distances: Tensor) -> Tensor:
        worst, at = distances.max(1)
        if self.settings.reweighting < 2:
            return worst
        patch = rows.gather(1, at[:, None, None].expand(-1, 1, rows.shape[2]))  # (B, 1, C)
        index = nearest(patch[:, 0], self.coreset.searched())[1]  # of one patch: ArgMin over all costs a lot
        around = self.coreset.searched()[self.neighbours[index]]  # (B, b, C)
        spread = (patch - around).square().sum(2).sqrt()
        # Eq. 7: 1 - exp(s*) / sum exp(distances to the neighbours), in the form that cannot overflow.
        return worst * (1 - 1 / torch.exp(spread - worst[:, None]).sum(1).clamp_min(1.0))

    def _offer_features(self, features: list[Tensor]) -> None:
        embedded = self.embed(features)
        self.coreset.offer(embedded.permute(0, 2, 3, 1).reshape(-1, embedded.shape[1]))

    def _link(self) -> None:
        """The neighbours of each kept patch within the bank, for the image score."""
        known = self.coreset.known()
        depth = min(self.neighbours.shape[1], len(known))
        for start in range(0, len(known), 1024):
            block = squared_distances(known[start : start + 1024], known)
            found = block.topk(depth, dim=1, largest=False).indices
            self.neighbours[start : start + len(found), :depth] = found
            self.neighbours[start : start + len(found), depth:] = found[:, :1]
        if self.lists:
            self.lists.build(known)

    def grow(self) -> None:
        self.coreset.fill()
        if self.lists:
            self.lists.build(self.coreset.bank)
