"""How bright a picture is against what was rebuilt of it: one gain and one offset, which no defect may pull.

Ours, in no publication of a method here: a rebuilt picture knows the light of the fit normals, and other light would
differ from it everywhere. The fit is iteratively reweighted least squares with Cauchy weights (Holland and Welsch,
Communications in Statistics, 1977), from gain 1 on and for a fixed number of rounds, so that a graph can hold it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

GRID = 64  # cells a side, at most: what light does is seen in means of so many
ROUNDS = 4
FLOOR = 0.03  # of the residuals' scale, values in [0, 1]: nearer than some grey levels all cells count alike
DOUBT = 1 / 3  # of the residuals' scale: contrast that is less says nothing of the gain
NORMAL = 1.4826  # deviation of a normal distribution over its median absolute deviation
GAINS = (0.5, 2.0)


def relit(rebuilt: Tensor, images: Tensor) -> Tensor:
    """*rebuilt* (B, 3, H, W) in the light of *images*, alike, in [0, 1]; what comes out may leave that range."""
    gain, offset = light(rebuilt, images)
    return gain * rebuilt + offset


def light(rebuilt: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and offset, (B, 1, 1, 1) each, by which *rebuilt* (B, 3, H, W) comes nearest to most of *images*, alike.

    One pair for all channels: another exposure moves all of them, and a part of another colour is a defect. Where less
    varies than differs the gain stays near 1; of a flat picture it is 1.
    """
    seen, wanted = _cells(rebuilt), _cells(images)
    apart = wanted - seen  # gain 1 is the start, and what the gain shrinks to
    offset = _median(apart)
    gain = torch.ones_like(offset)
    for _ in range(ROUNDS):
        left = apart - (gain - 1) * seen - offset
        scale = (NORMAL * _median(left.abs())).clamp_min(FLOOR)
        gain, offset = _fitted(seen, apart, (DOUBT * scale).square(), 1 / (1 + (left / scale).square()))
    return gain[..., None, None], offset[..., None, None]


def _cells(images: Tensor) -> Tensor:
    """Brightness in cells of equal size, (B, 3, H, W) -> (B, N)."""
    side = -(-min(images.shape[2], images.shape[3]) // GRID)
    return F.avg_pool2d(images.mean(1, keepdim=True), side).flatten(1)


def _median(values: Tensor) -> Tensor:
    """(B, N) -> (B, 1); the upper one of two."""
    return values.topk(values.shape[1] // 2 + 1).values[:, -1:]


def _fitted(seen: Tensor, apart: Tensor, doubt: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted least squares of *apart* on *seen*, (B, N) each; the slope shrinks as *doubt* (B, 1) to the variance."""
    share = weights / weights.sum(1, keepdim=True)
    middle, level = (share * seen).sum(1, keepdim=True), (share * apart).sum(1, keepdim=True)
    centred = seen - middle
    slope = (share * centred * (apart - level)).sum(1, keepdim=True)
    slope = slope / ((share * centred.square()).sum(1, keepdim=True) + doubt)
    gain = (1 + slope).clamp(*GAINS)
    return gain, level - (gain - 1) * middle
