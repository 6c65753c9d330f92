"""Convolutional pieces that several detectors share."""

import torch.nn.functional as F
from torch import Tensor, nn


def convolution(entering: int, leaving: int, stride: int = 1) -> tuple[nn.Module, ...]:
    """3 x 3 convolution, batch normalisation, ReLU."""
    return nn.Conv2d(entering, leaving, 3, stride, 1, bias=False), nn.BatchNorm2d(leaving), nn.ReLU()


class Residual(nn.Module):
    """The basic block of a residual network, without change of size (He et al., CVPR 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            *convolution(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.path(x))
