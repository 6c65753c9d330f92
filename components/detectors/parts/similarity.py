"""How alike two images look, position by position: maps of structural and gradient similarity.

SSIM after Wang et al. (IEEE TIP 2004), with the window of kornia's. Gradient magnitude similarity after Xue et al.
(IEEE TIP 2014), on several scales as Zavrtanik et al. (RIAD, Pattern Recognition 2021) use it.
"""

import torch
import torch.nn.functional as F
from kornia.filters import filter2d_separable, get_gaussian_kernel1d
from torch import Tensor

from components.detectors.parts.blocks import upsample

CONSTANT = 0.0026  # of the gradient similarity, for values in [0, 1]
LUMINANCE, STRUCTURE = 0.01**2, 0.03**2  # of SSIM, likewise


def structural_difference(one: Tensor, two: Tensor, window: int = 11) -> Tensor:
    """1 - SSIM, averaged over channels: (B, C, H, W) twice, in [0, 1] -> (B, 1, H, W)."""
    kernel = get_gaussian_kernel1d(window, 1.5, device=one.device, dtype=one.dtype)
    # Second moments about the image's mean: about zero, as in kornia's own ssim, float32 loses the variance of a
    # smooth area in the rounding of its square, and two runtimes differ by more than scores may.
    centre = one.mean((2, 3), keepdim=True)
    a, b = one - centre, two - centre
    moments = torch.cat([a, b, a.square(), b.square(), a * b], 1)
    a, b, aa, bb, ab = filter2d_separable(moments, kernel, kernel).chunk(5, 1)
    varied = (2 * (ab - a * b) + STRUCTURE) / (aa - a.square() + bb - b.square() + STRUCTURE)
    a, b = a + centre, b + centre
    return 1 - (varied * (2 * a * b + LUMINANCE) / (a.square() + b.square() + LUMINANCE)).mean(1, keepdim=True)


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
