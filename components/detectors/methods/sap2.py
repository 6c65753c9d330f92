"""SAP2: an image beside its nearest normals, both projected (Gui et al., 2021, arXiv 2112.02597; CAP, IJCAI 2022).

Image level by nature: one vector per image. The paper gives no map; ours is the exact decomposition of the image score
over positions (its mean is the score), which says where the disagreement comes from and was not trained to localise.
Reconstructed: k and lambda for industrial images (the paper's appendix was out of reach).
Memory after fit: the bank of all normal vectors and three square matrices.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.backbones.extractor import BackboneSettings
from components.detectors.contract import FeatureDetector, MethodInfo, OnePass, Optimise, Phase, Scores, TrainingData
from components.detectors.parts.blocks import upsample
from components.detectors.parts.draw import Draw

HIDDEN = -1e4  # logit of a neighbour that does not count


@dataclass(frozen=True)
class SAP2Settings:
    """Settings; *neighbours* is k, *constraint* lambda of the paper."""

    backbone: BackboneSettings = BackboneSettings("resnet152", (4,), 224)
    neighbours: int = 32
    constraint: float = 2.0  # weight of the term that ties projected to pretrained vectors (0: they may collapse)
    attention: bool = True  # False: the plain mean of the projected neighbours
    adapt: bool = True  # False: nothing is learned, pretrained vectors beside the mean of their neighbours
    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 5e-4
    decay: float = 0.9  # of the learning rate per epoch
    bank_size: int = 5000  # normals at most, a drawn subset of more


class SAP2(FeatureDetector):
    """Image score: 1 - cosine of the projected image and its adaptive normal representation; map: its terms."""

    name = "sap2"
    settings_type = SAP2Settings
    presets = {
        "paper": SAP2Settings(),
        "cpu": SAP2Settings(BackboneSettings(taps=(3, 4))),
        "tiny": SAP2Settings(BackboneSettings(taps=(3,), size=64), neighbours=4, epochs=2, batch_size=8, bank_size=64),
    }
    info = MethodInfo(
        title="SAP2",
        paper="Gui, Wu, Chang, Fan: Simple Adaptive Projection with Pretrained Features for Anomaly Detection",
        year=2021,
        venue="arXiv 2112.02597; IJCAI 2022 as Constrained Adaptive Projection",
        family="nearest normals, adaptive projection; image level",
        needs=("frozen backbone",),
        reconstructed=("k and lambda for industrial images", "the map"),
        published={"MVTec AD image AUROC (SAP2)": 88.1, "MVTec AD image AUROC (CAP)": 89.9},
    )
    settings: SAP2Settings

    bank: Tensor
    unused: Tensor
    count: Tensor

    def __init__(self, settings: SAP2Settings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        width = sum(self.backbone.channels)
        self.project, self.query, self.key = (nn.Linear(width, width, bias=False) for _ in range(3))
        for layer in (self.project, self.query, self.key):
            nn.init.xavier_uniform_(layer.weight)
        self.register_buffer("bank", torch.zeros(settings.bank_size, width))
        self.register_buffer("unused", torch.full((settings.bank_size,), -10.0))  # added to the similarity
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))  # of normals that were offered
        self.draw = Draw(settings.bank_size, "bank")

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, table = self.settings, data.features(self.backbone)
        self.draw.expect(len(table))
        yield OnePass("bank", table, lambda features: self._add(self.vectors(features)), lambda: None)
        if s.adapt:
            yield Optimise(
                "projection",
                table,
                self.loss,
                [p for p in self.parameters() if p.requires_grad],
                partial(torch.optim.Adam, lr=s.learning_rate),
                epochs=s.epochs,
                batch_size=s.batch_size,
                schedule=lambda done: s.decay ** int(done * s.epochs),
            )

    def projected(self, z: Tensor) -> Tensor:
        """(..., D) -> the same shape."""
        return self.project(z) if self.settings.adapt else z  # type: ignore[no-any-return]

    def local(self, features: list[Tensor]) -> Tensor:
        """All taps pooled to the coarsest grid: (B, D, h, w)."""
        side = features[-1].shape[-1]
        return torch.cat([F.avg_pool2d(f, f.shape[-1] // side) for f in features], 1)

    def vectors(self, features: list[Tensor]) -> Tensor:
        """Globally averaged features (B, D)."""
        return self.local(features).mean((2, 3))

    def _add(self, rows: Tensor) -> None:
        chosen, at = self.draw.among(int(self.count), len(rows))
        self.bank[at : at + len(chosen)] = rows[chosen]
        self.unused[at : at + len(chosen)] = 0
        self.count += len(rows)

    def normal(self, z: Tensor, skip: int = 0) -> Tensor:
        """The adaptive normal representation of *z* (B, D): its k nearest normals, projected, attended, averaged.

        *skip* leaves out the nearest: in training that is the image itself. Of fewer normals than k all are taken; a
        normal without another one is its own neighbour.
        """
        k = min(self.settings.neighbours + skip, len(self.bank))
        similarity = F.normalize(z, dim=1) @ F.normalize(self.bank, dim=1).T + self.unused
        x = self.projected(self.bank[similarity.topk(k, dim=1).indices])  # (B, k, D)
        used = self._used(k, skip)
        if self.settings.attention and self.settings.adapt:
            logits = self.query(x) @ self.key(x).transpose(1, 2) / x.shape[2] ** 0.5
            x = (logits + HIDDEN * (1 - used)).softmax(2) @ x + x
        return (x * used[:, None]).sum(1) / used.sum().clamp_min(1)

    def _used(self, k: int, skip: int) -> Tensor:
        """Which of the *k* nearest rows count, (k,) of 0 and 1: rows that hold nothing come last and do not."""
        held, place = (self.unused == 0).sum(), torch.arange(k, device=self.unused.device)
        return ((place < held) & (place >= (held - 1).clamp(0, skip))).float()

    def loss(self, features: list[Tensor]) -> Tensor:
        """Disagreement with the normal representation, and the constraint to the pretrained vector."""
        z = self.vectors(features)
        v = self.project(z)
        apart = (1 - F.cosine_similarity(self.normal(z, skip=1), v)).mean()
        tie = (z - v).square().mean() + (1 - F.cosine_similarity(z, v)).mean()
        return apart + self.settings.constraint * tie

    def score(self, features: list[Tensor], size: tuple[int, int]) -> Scores:
        local = self.local(features)
        z = local.mean((2, 3))
        v, y = self.projected(z), self.normal(z)
        # The projection is linear and z a mean: the cosine is a mean of one term per position.
        scale = y.norm(dim=1, keepdim=True) * v.norm(dim=1, keepdim=True)
        parts = self.projected(local.flatten(2).transpose(1, 2)) @ (y / scale.clamp_min(1e-12))[:, :, None]
        maps = 1 - parts.transpose(1, 2).unflatten(2, local.shape[-2:])
        return Scores(1 - F.cosine_similarity(y, v), upsample(maps, size))
