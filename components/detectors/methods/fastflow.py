"""FastFlow: 2-D normalising flows on frozen features (Yu et al., 2021, arXiv 2111.07677).

One flow per tap, fully convolutional coupling steps on the feature maps themselves, trained by the exact likelihood.
Reconstructed where the paper is silent: layer normalisation in front of each flow, soft clamping of the log scale,
image score as the maximum of the map (all as in the public re-implementations), or the mean of its largest values.
Memory after fit: the weights of the flows, e.g. 3.5 million for tf_efficientnet_lite0 taps 2-4.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import cos, pi
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.backbones.extractor import BackboneSettings
from components.detectors.contract import FeatureDetector, MethodInfo, Optimise, Phase, Scores, TrainingData
from components.detectors.parts.blocks import upsample
from components.detectors.parts.winograd import convolved


@dataclass(frozen=True)
class FastFlowSettings:
    """Settings; *kernels* alternate over the steps: (3, 1) in the paper, (3,) for ResNet-18."""

    backbone: BackboneSettings = BackboneSettings(taps=(1, 2, 3))
    steps: int = 8
    kernels: tuple[int, ...] = (3, 1)
    hidden_ratio: float = 1.0  # width of the subnets over that of their input half: 1.0 ResNets, 0.16 transformers
    layer_norm: bool = True  # in front of each flow; ours (reconstructed). Transformers bring a norm of their own
    clamp: float = 2.0  # bound of the log scale per step; ours (reconstructed)
    epochs: int = 500
    batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 1e-5
    clip: float = 1.0  # gradient norm; the loss is of the order of 1e5
    top: float = 0.0  # share of the map whose mean is the image score (0: the maximum); ours (reconstructed)
    average: float = 0.0  # decay of the moving average of weights; scores oscillate from epoch to epoch without one


# The published backbones, each a preset for sites that have the weights.
BACKBONES = {
    "cait_m48_448": FastFlowSettings(
        BackboneSettings("cait_m48_448", (40,), 448), steps=20, hidden_ratio=0.16, layer_norm=False
    ),
    "deit_base_distilled_patch16_384": FastFlowSettings(
        BackboneSettings("deit_base_distilled_patch16_384", (7,), 384), steps=20, hidden_ratio=0.16, layer_norm=False
    ),
    "resnet18": FastFlowSettings(BackboneSettings("resnet18", (1, 2, 3), 256), kernels=(3,)),
    "wide_resnet50_2": FastFlowSettings(BackboneSettings("wide_resnet50_2", (1, 2, 3), 256)),
}


class Coupling(nn.Module):
    """One flow step: affine coupling, global affine, fixed channel permutation. Keeps (B, C, h, w)."""

    permutation: Tensor

    def __init__(self, channels: int, kernel: int, hidden_ratio: float, clamp: float) -> None:
        super().__init__()
        self.kept, self.changed, self.clamp = channels - channels // 2, channels // 2, clamp
        hidden = max(1, int(hidden_ratio * self.kept))
        self.subnet = nn.Sequential(
            nn.Conv2d(self.kept, hidden, kernel, padding=kernel // 2),
            nn.ReLU(),
            nn.Conv2d(hidden, 2 * self.changed, kernel, padding=kernel // 2),
        )
        self.scale = nn.Parameter(torch.full((1, channels, 1, 1), _inverse_softplus(10.0)))
        self.offset = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("permutation", torch.randperm(channels))  # saved: the weights mean nothing without it

    def forward(self, x: Tensor) -> Tensor:
        return self._moved(x)[0]

    def step(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The transformed maps and log|det J| per image (B,)."""
        y, log_scale, gain = self._moved(x)
        log_det = log_scale.sum((1, 2, 3)) + x.shape[2] * x.shape[3] * gain.log().sum()
        return y, log_det

    def parts(self, x: Tensor) -> tuple[Tensor, ...]:
        """What a step keeps of its maps, and what it changes."""
        return x.split([self.kept, self.changed], 1)

    def _moved(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The transformed maps, log scale (B, C // 2, h, w) and gain (1, C, 1, 1); no log|det J|, which scoring and its
        graph have no use for."""
        kept, changed = self.parts(x)
        log_scale, shift = (0.1 * self.subnet(kept)).split([self.changed, self.changed], 1)
        log_scale = self.clamp * torch.tanh(log_scale)
        gain = 0.1 * F.softplus(self.scale, beta=0.5)
        y = torch.cat([kept, changed * log_scale.exp() + shift], 1) * gain + self.offset
        return y[:, self.permutation], log_scale, gain

    def learnt(self, kept: Tensor, changed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What ``step`` says of the two parts of its maps, with their channels last in memory: the parts for the next
        step, and log|det J| per image (B,). Equal but for rounding, in three quarters of the time (docs/adr/0055)."""
        subnet: Any = self.subnet
        hidden = convolved(kept, subnet[0].weight, subnet[0].bias).relu()
        said = convolved(hidden, 0.1 * subnet[2].weight, 0.1 * subnet[2].bias)
        gain = 0.1 * F.softplus(self.scale, beta=0.5)
        *parts, grown = Affine.apply(kept, changed, said, gain.flatten(), self.offset.flatten(), self)
        return *parts, grown + kept.shape[2] * kept.shape[3] * gain.log().sum()


class Affine(torch.autograd.Function):
    """The pointwise half of a coupling on maps in channels-last order, with the gradient written out.

    From the two parts of the maps (B, kept, h, w) and (B, changed, h, w), what the subnet says (B, 2 * changed, h, w),
    gain (C,) and offset (C,): the parts for a next coupling, and the sum of the log scale per image (B,). Autograd
    alone passes twice as often over the maps, and adds up value by value what comes back through the permutation.
    """

    @staticmethod
    def forward(
        ctx: Any, kept: Tensor, changed: Tensor, said: Tensor, gain: Tensor, offset: Tensor, step: Coupling
    ) -> tuple[Tensor, ...]:
        rows, moves = _rows(changed), _rows(said)
        bent = moves[:, : step.changed].tanh()
        stretch = (step.clamp * bent).exp_()
        before = torch.cat([_rows(kept), torch.addcmul(moves[:, step.changed :], rows, stretch)], 1)
        y = torch.addcmul(offset, before, gain)
        ctx.save_for_backward(rows, bent, stretch, before, gain, step.permutation)
        ctx.clamp, ctx.shape = step.clamp, kept.shape
        parts = (
            _maps(y.index_select(1, chosen), kept.shape) for chosen in step.permutation.split([step.kept, step.changed])
        )
        return *parts, step.clamp * bent.view(len(kept), -1).sum(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, bent, stretch, before, gain, permutation = ctx.saved_tensors
        kept = before.shape[1] - rows.shape[1]
        back = torch.cat([_rows(grads[0]), _rows(grads[1])], 1).index_select(1, permutation.argsort())
        for_gain, for_offset = torch.linalg.vecdot(back, before, dim=0), back.sum(0)
        back.mul_(gain)
        changed = back[:, kept:] * stretch
        each = (ctx.clamp * grads[2]).repeat_interleave(len(rows) // len(grads[2]))[:, None]
        bow = torch.ops.aten.tanh_backward(torch.addcmul(each, changed, rows, value=ctx.clamp), bent)
        moves = torch.cat([bow, back[:, kept:]], 1)
        parts = (_maps(part, ctx.shape) for part in (back[:, :kept], changed, moves))
        return *parts, for_gain, for_offset, None


def _rows(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> (B * h * w, C), without a copy where channels come last in memory."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(rows: Tensor, shape: Sequence[int]) -> Tensor:
    """(B * h * w, C) -> (B, C, h, w), channels last in memory; *shape* is (B, any, h, w)."""
    return rows.unflatten(0, (shape[0], *shape[2:])).permute(0, 3, 1, 2)


class Flow(nn.Module):
    """The flow of one tap. ``forward`` gives z (B, C, h, w); ``likelihood`` its negative log-likelihood per image."""

    def __init__(self, channels: int, grid: int, settings: FastFlowSettings) -> None:
        super().__init__()
        # Without weights of its own: the likelihood is that of what the norm gives, and weights there would lower the
        # loss by shrinking it. What they could do, scale and offset of the first step do, and are counted.
        normed = nn.LayerNorm([channels, grid, grid], elementwise_affine=False)
        self.norm = normed if settings.layer_norm else nn.Identity()
        kernels = [settings.kernels[i % len(settings.kernels)] for i in range(settings.steps)]
        self.steps = nn.ModuleList(Coupling(channels, k, settings.hidden_ratio, settings.clamp) for k in kernels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        for step in self.steps:
            x = step(x)
        return x

    def likelihood(self, x: Tensor) -> Tensor:
        """0.5 * |z|^2 - log|det J|, (B,); the constant of the Gaussian is left out."""
        x = self.norm(x)
        plain = x.device.type != "cpu" or torch.is_autocast_enabled("cpu")
        maps, total = self._stepped(x) if plain else self._learnt(x)
        return 0.5 * torch.stack([part.square().sum((1, 2, 3)) for part in maps]).sum(0) - total

    def _stepped(self, x: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """z, and log|det J| per image."""
        total = torch.zeros(len(x), device=x.device)
        for step in self.steps:
            x, log_det = step.step(x)  # type: ignore[operator]
            total = total + log_det
        return [x], total

    def _learnt(self, x: Tensor) -> tuple[Sequence[Tensor], Tensor]:
        """The same, z in two parts, by the shorter way of a processor."""
        first: Any = self.steps[0]
        parts: Sequence[Tensor] = [part.contiguous(memory_format=torch.channels_last) for part in first.parts(x)]
        total = torch.zeros(len(x))
        for step in self.steps:
            *parts, log_det = step.learnt(*parts)  # type: ignore[operator]
            total = total + log_det
        return parts, total


class FastFlow(FeatureDetector):
    """Map: mean over taps of -exp(-mean(z^2) / 2), upsampled; image score: the mean of its ``top`` share."""

    name = "fastflow"
    settings_type = FastFlowSettings
    presets = {
        "paper": BACKBONES["wide_resnet50_2"],
        # Taps, one level deeper than the paper's, and top: by AUROC on synthetic anomalies (docs/methods/fastflow.md).
        "cpu": FastFlowSettings(BackboneSettings(taps=(2, 3, 4)), epochs=12, batch_size=16, top=0.005, average=0.98),
        "tiny": FastFlowSettings(BackboneSettings(taps=(2, 3), size=64), steps=2, epochs=4, batch_size=4),
        **BACKBONES,
    }
    info = MethodInfo(
        title="FastFlow",
        paper="Yu, Zheng, Wang, Li, Wu, Zhao, Wu: FastFlow: Unsupervised Anomaly Detection and Localization via 2D "
        "Normalizing Flows",
        year=2021,
        venue="arXiv 2111.07677",
        family="normalising flow",
        needs=("frozen backbone",),
        reconstructed=(
            "layer normalisation before each flow",
            "soft clamp of the log scale",
            "image score: maximum, or mean of the top share",
        ),
        published={"MVTec AD image AUROC": 99.4, "MVTec AD pixel AUROC (CaiT)": 98.5},
    )
    settings: FastFlowSettings

    def __init__(self, settings: FastFlowSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        taps = zip(self.backbone.channels, self.backbone.grids, strict=True)
        self.flows = nn.ModuleList(Flow(channels, grid, settings) for channels, grid in taps)

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s = self.settings
        yield Optimise(
            "flows",
            data.features(self.backbone),
            self.loss,
            list(self.flows.parameters()),
            partial(torch.optim.Adam, lr=s.learning_rate, weight_decay=s.weight_decay),
            epochs=s.epochs,
            batch_size=s.batch_size,
            schedule=lambda done: 0.5 * (1 + cos(pi * done)),  # ours: the paper's rate is constant over 500 epochs
            clip=s.clip,
            average=s.average,
        )

    def loss(self, features: list[Tensor]) -> Tensor:
        """Negative log-likelihood, summed over taps, averaged over the batch."""
        per_tap = [flow.likelihood(f).mean() for flow, f in zip(self.flows, features, strict=True)]  # type: ignore
        return torch.stack(per_tap).sum()

    def score(self, features: list[Tensor], size: tuple[int, int]) -> Scores:
        taps = [
            -torch.exp(-0.5 * flow(f).square().mean(1, keepdim=True))
            for flow, f in zip(self.flows, features, strict=True)
        ]
        own = _mean_at(taps, (self.size, self.size))  # the image score must not depend on the size asked for
        most = own.flatten(1).topk(max(1, int(self.settings.top * self.size**2)), dim=1).values
        return Scores(most.mean(1), _mean_at(taps, size))


def _mean_at(maps: list[Tensor], size: tuple[int, int]) -> Tensor:
    return torch.stack([upsample(m, size) for m in maps]).mean(0)


def _inverse_softplus(value: float, beta: float = 0.5) -> float:
    return float(torch.log(torch.expm1(torch.tensor(beta * value))) / beta)
