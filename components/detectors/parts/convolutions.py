"""Convolutional pieces that several detectors share."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.detectors.parts.blocks import upsample

Norm = Callable[[int], nn.Module]


def convolution(
    entering: int,
    leaving: int,
    stride: int = 1,
    norm: Norm = nn.BatchNorm2d,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> tuple[nn.Module, ...]:
    """3 x 3 convolution, normalisation, activation."""
    return nn.Conv2d(entering, leaving, 3, stride, 1, bias=False), norm(leaving), activation()


def halve(
    entering: int, leaving: int, norm: Norm = nn.BatchNorm2d, activation: Callable[[], nn.Module] = nn.ReLU
) -> tuple[nn.Module, ...]:
    """4 x 4 convolution at stride 2, normalisation, activation: half the side."""
    return nn.Conv2d(entering, leaving, 4, 2, 1), norm(leaving), activation()


def double(
    entering: int, leaving: int, norm: Norm = nn.BatchNorm2d, activation: Callable[[], nn.Module] = nn.ReLU
) -> tuple[nn.Module, ...]:
    """4 x 4 transposed convolution at stride 2, normalisation, activation: twice the side."""
    return nn.ConvTranspose2d(entering, leaving, 4, 2, 1), norm(leaving), activation()


class Residual(nn.Module):
    """The basic block of a residual network, without change of size (He et al., CVPR 2016)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.path = nn.Sequential(
            *convolution(width, width), nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.path(x))


class Twice(nn.Sequential):
    """Two convolutions, the unit of a U-Net (Ronneberger et al., MICCAI 2015)."""

    def __init__(self, entering: int, leaving: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__(*convolution(entering, leaving, norm=norm), *convolution(leaving, leaving, norm=norm))


class Encoder(nn.Module):
    """The way down of a U-Net: (B, C, H, W) -> a map per width, finest first, each half the side of the one before."""

    def __init__(self, entering: int, widths: Sequence[int], norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Twice(a, b, norm) for a, b in zip((entering, *widths), widths, strict=False))

    def forward(self, x: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        for level in self.levels:
            found.append(level(F.max_pool2d(found[-1], 2) if found else x))
        return found


class Decoder(nn.Module):
    """The way up: *widths* are of the maps, coarsest first, *laterals* the channels that join at the finer levels.

    ``forward`` takes the coarsest map and one lateral per finer level (None where *laterals* has 0) and returns the
    maps of all finer levels, coarsest first.
    """

    def __init__(self, widths: Sequence[int], laterals: Sequence[int], norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        steps = zip(widths, widths[1:], laterals, strict=False)
        self.levels = nn.ModuleList(Twice(above + lateral, width, norm) for above, width, lateral in steps)

    def forward(self, deepest: Tensor, laterals: Sequence[Tensor | None]) -> list[Tensor]:
        found, x = [], deepest
        for level, lateral in zip(self.levels, laterals, strict=True):
            x = upsample(x, (2 * x.shape[2], 2 * x.shape[3]))
            x = level(x if lateral is None else torch.cat([x, lateral], 1))
            found.append(x)
        return found


class UNet(nn.Module):
    """Encoder, decoder with plain laterals at every level, 1 x 1 head: (B, C, H, W) -> (B, leaving, H, W)."""

    def __init__(self, entering: int, leaving: int, widths: Sequence[int], norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        upward = list(widths)[::-1]
        self.encoder, self.decoder = Encoder(entering, widths, norm), Decoder(upward, upward[1:], norm)
        self.head = nn.Conv2d(widths[0], leaving, 1)

    def forward(self, x: Tensor) -> Tensor:
        *finer, deepest = self.encoder(x)
        return self.head(self.decoder(deepest, finer[::-1])[-1])  # type: ignore[no-any-return]
