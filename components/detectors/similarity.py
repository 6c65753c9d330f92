"""How alike two images look, position by position: maps of structural and gradient similarity.

SSIM is kornia's (Wang et al., IEEE TIP 2004). Gradient magnitude similarity after Xue et al. (IEEE TIP 2014), on
several scales as Zavrtanik et al. (RIAD, Pattern Recognition 2021) use it.
"""

import torch
import torch.nn.functional as F
from kornia.metrics import ssim
from torch import Tensor

from components.detectors.blocks import upsample

CONSTANT = 0.0026  # of the gradient similarity, for values in [0, 1]


def structural_difference(one: Tensor, two: Tensor, window: int = 11) -> Tensor:
    """1 - SSIM, averaged over channels: (B, C, H, W) twice, in [0, 1] -> (B, 1, H, W)."""
    return 1 - ssim(one, two, window, max_val=1.0, padding="same").mean(1, keepdim=True)


def gradient_difference(one: Tensor, two: Tensor, scales: int = 4) -> Tensor:
    """1 - GMS of the grey images, averaged over *scales* halvings: (B, C, H, W) twice -> (B, 1, H, W)."""
    size, total = (one.shape[2], one.shape[3]), torch.zeros_like(one[:, :1])
    one, two = one.mean(1, keepdim=True), two.mean(1, keepdim=True)
    for number in range(scales):
        if number:
            one, two = F.avg_pool2d(one, 2), F.avg_pool2d(two, 2)
        a, b = _magnitude(one), _magnitude(two)
        apart = 1 - (2 * a * b + CONSTANT) / (a.square() + b.square() + CONSTANT)
        total = total + (upsample(apart, size) if number else apart)
    return total / scales


def _magnitude(grey: Tensor) -> Tensor:
    """Length of the Prewitt gradient, (B, 1, H, W)."""
    row = torch.tensor([1.0, 1.0, 1.0], device=grey.device) / 3
    edge = torch.tensor([1.0, 0.0, -1.0], device=grey.device)
    across = torch.stack([torch.outer(row, edge), torch.outer(edge, row)])[:, None]
    both = F.conv2d(F.pad(grey, (1, 1, 1, 1), mode="replicate"), across)
    return (both.square().sum(1, keepdim=True) + 1e-12).sqrt()
