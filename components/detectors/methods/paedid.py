"""PAEDID: image decomposition with a patch autoencoder as background (Mou et al., 2022, arXiv 2203.14457).

A patch autoencoder learns what the background of normal images looks like. An image is then taken apart into
background, sparse defect and small dense noise by a fixed number of steps in turn: the background is what the
autoencoder makes of the image without the defect found so far, the defect is what is left, shrunk towards zero.
The defect is the segmentation: exactly zero outside.
Reconstructed: networks, objective, solver and numbers (the abstract states the parts and what they are to do).
Memory after fit: 0.5 million weights in the ``paper`` preset, and a bank of bank_size codes.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.core.errors import SettingsError
from components.detectors.contract import (
    MethodInfo,
    OnePass,
    Optimise,
    Phase,
    PixelDetector,
    Scores,
    TrainingData,
    scratch,
)
from components.detectors.parts.blocks import POSITIONS, box_mean, in_proportion, largest, nearest, upsample
from components.detectors.parts.convolutions import convolution, double
from components.detectors.parts.coreset import Coreset
from components.detectors.parts.similarity import structural_difference

BINS = 4096  # of the histogram of residuals in [-1, 1]
NORMAL = 1.4826  # deviation of a normal distribution over its median absolute deviation
SPREAD = 1.2533  # the same over its mean absolute deviation


@dataclass(frozen=True)
class PAEDIDSettings:
    """Settings; the image is X = L + S + E: background, sparse defect, noise."""

    size: int = 256
    patch: int = 16  # side of what one code sees, a power of two; reconstructed
    width: int = 64  # of the networks; reconstructed
    code: int = 32  # length of a patch's code; reconstructed
    structure: float = 0.5  # weight of 1 - SSIM beside the squared error; reconstructed
    noise: float = 0.03  # deviation added to what is rebuilt in training; reconstructed
    epochs: int = 300  # reconstructed
    batch_size: int = 16  # reconstructed
    learning_rate: float = 1e-3  # falls to a tenth; reconstructed
    steps: int = 10  # of the decomposition; reconstructed
    prior: float = 5.0  # mu: weight of the autoencoder's word against the data's; reconstructed
    damping: float = 0.5  # share of the background of the step before; reconstructed
    threshold: float = 3.0  # lambda, in deviations of the residual on fit normals; reconstructed
    positions: bool = False  # ours: the deviation is that of each position, never below the one of all
    surroundings: int = 0  # ours: side of the square, odd, whose own residual may raise lambda in its middle; 0: none
    block: float = 0.5  # gamma over lambda, shrinks what is weak in its neighbourhood (0: off); reconstructed
    block_side: int | None = None  # of that neighbourhood, odd; none: 7 at size 256, in proportion; reconstructed
    weights: bool = True  # lambda is smaller where a patch's code is far from the normal ones; reconstructed
    bank_size: int = 512  # normal codes that are kept; reconstructed
    brightness: bool = False  # fit gain and offset of the background to each image; reconstructed
    sign: Literal["both", "bright", "dark"] = "both"  # what a defect may be; reconstructed
    top: float = 0.001  # share of the map whose mean is the image score; reconstructed

    def __post_init__(self) -> None:
        if self.patch < 2 or self.patch & (self.patch - 1) or self.size % self.patch:
            raise SettingsError(f"patch is {self.patch}: give a power of two that divides size {self.size}")
        if self.surroundings and self.surroundings % 2 == 0:
            raise SettingsError(f"surroundings is {self.surroundings}: give an odd side, or 0 for none")


class PatchEncoder(nn.Sequential):
    """Codes of the patches of an image: (B, 3, H, W) -> (B, code, H / patch, W / patch).

    Kernels are as large as their strides and nothing is normalised across positions: no patch sees another.
    """

    def __init__(self, patch: int, width: int, code: int) -> None:
        halvings = patch.bit_length() - 1
        widths = [3, *(width * 2 ** min(i, 2) // 2 for i in range(halvings))]
        steps = [layer for a, b in pairwise(widths) for layer in (nn.Conv2d(a, b, 2, 2), nn.LeakyReLU(0.2))]
        super().__init__(*steps, nn.Conv2d(widths[-1], code, 1))


class Background(nn.Sequential):
    """Codes to an image in [0, 1]; neighbouring codes speak to each other before the sides are doubled."""

    def __init__(self, patch: int, width: int, code: int) -> None:
        halvings = patch.bit_length() - 1
        widths = [2 * width, *(max(8, 2 * width >> i) for i in range(1, halvings))]
        steps = [*convolution(code, widths[0]), *convolution(widths[0], widths[0])]
        steps += [layer for a, b in pairwise(widths) for layer in double(a, b)]
        super().__init__(*steps, *double(widths[-1], 3, lambda _: nn.Identity(), nn.Sigmoid))


class PAEDID(PixelDetector):
    """Map: length of the sparse defect at every pixel, exactly zero elsewhere; image score: the mean of its largest."""

    name = "paedid"
    settings_type = PAEDIDSettings
    presets = {
        "paper": PAEDIDSettings(),
        "cpu": PAEDIDSettings(
            size=128,
            width=16,
            code=16,
            epochs=15,
            batch_size=8,
            learning_rate=3e-3,
            threshold=2.0,
            positions=True,
            brightness=True,
            top=0.01,
        ),
        "tiny": PAEDIDSettings(
            size=64,
            patch=8,
            width=8,
            code=8,
            epochs=6,
            batch_size=4,
            learning_rate=1e-2,
            steps=4,
            threshold=1.0,
            block=0.1,
            bank_size=64,
        ),
    }
    info = MethodInfo(
        title="PAEDID",
        paper="Mou, Cao, Bai, Huang, Shi, Shan: PAEDID: Patch Autoencoder Based Deep Image Decomposition For "
        "Pixel-level Defective Region Segmentation",
        year=2022,
        venue="arXiv 2203.14457; IISE Transactions",
        family="reconstruction, sparse decomposition",
        needs=("pixels", "aligned images"),
        reconstructed=(
            "patch autoencoder",
            "objective and its weights",
            "solver",
            "threshold by the surroundings",
            "all numbers",
        ),
    )
    settings: PAEDIDSettings
    histogram: Tensor
    deviation: Tensor
    local: Tensor
    squares: Tensor
    typical: Tensor
    centre: Tensor
    gaps: Tensor

    def __init__(self, settings: PAEDIDSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s = settings
        self.encoder = PatchEncoder(s.patch, s.width, s.code)
        self.background = Background(s.patch, s.width, s.code)
        self.bank = Coreset(s.bank_size, s.code, growth=1.1)
        scratch(self, "histogram", torch.zeros(BINS, dtype=torch.float64))
        self.register_buffer("deviation", torch.full((), 0.03))  # of X - P(X) on normals
        side = s.size if s.positions else 1
        self.register_buffer("local", torch.ones(1, 1, side, side))  # that of each position over the one of all
        scratch(self, "squares", torch.zeros(2, side, side, dtype=torch.float64))
        self.register_buffer("typical", torch.ones(()))  # mean distance of a normal code to the bank
        self.register_buffer("centre", torch.zeros(s.code))  # of the bank
        scratch(self, "gaps", torch.zeros(2, dtype=torch.float64))

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, table = self.settings, data.pixels(self.size)
        yield Optimise(
            "background",
            table,
            self.loss,
            [*self.encoder.parameters(), *self.background.parameters()],
            partial(torch.optim.Adam, lr=s.learning_rate),
            epochs=s.epochs,
            batch_size=s.batch_size,
            schedule=lambda done: 0.1**done,
            select=False,
        )
        if s.weights:
            yield OnePass(
                "codes", table, lambda images: self.bank.offer(self._rows(self.encoder(images))), self._find_centre
            )
            yield OnePass("distances", table, self._add_gaps, self._finish_gaps, sums=True)
        yield OnePass("noise", table, self._add_residuals, self._finish_residuals, sums=True)
        if s.positions:  # found in the pass before, and taken here, so that it can be undone
            yield OnePass(POSITIONS, table, lambda _: None, self._take_positions, optional=True)

    def prior(self, images: Tensor) -> Tensor:
        """P: the background that the patch autoencoder sees, (B, 3, H, W)."""
        rebuilt = self.background(self.encoder(images))
        return _relit(rebuilt, images) if self.settings.brightness else rebuilt

    def loss(self, images: Tensor) -> Tensor:
        """Normal images from noisy ones, as P meets what is not quite normal inside the decomposition."""
        rebuilt = self.background(self.encoder(images + self.settings.noise * torch.randn_like(images)))
        return (rebuilt - images).square().mean() + self.settings.structure * structural_difference(
            rebuilt, images
        ).mean()

    def decompose(self, images: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Background and defect after each step, (B, 3, H, W) both."""
        s, background, defect = self.settings, self.prior(images), torch.zeros_like(images)
        scale = self.scale(images, background)
        level = s.threshold * scale * self.weighting(images)
        for _ in range(s.steps):
            without = images - defect
            moved = (without + s.prior * self.prior(without)) / (1 + s.prior)
            background = s.damping * background + (1 - s.damping) * moved
            defect = self.sparse(images - background, level, scale)
            yield background, defect

    def scale(self, images: Tensor, background: Tensor) -> Tensor:
        """Deviation of the residual at every position, (B or 1, 1, H, W): of the fit normals, or of its surroundings.

        A grain that the background cannot follow raises what counts as a defect in it. The deviation of surroundings is
        their mean absolute residual, of which a small defect is a small part.
        """
        known, side = self.deviation * self.local, self.settings.surroundings
        if not side:
            return known
        residual = (images - background).abs().mean(1, keepdim=True)
        return torch.maximum(known, box_mean(F.pad(residual, [side // 2] * 4, mode="reflect"), side) * SPREAD)

    def sparse(self, residual: Tensor, level: Tensor, scale: Tensor | None = None) -> Tensor:
        """Soft threshold, then whole neighbourhoods that are weak are shrunk to zero; *scale* is as ``scale`` says."""
        s, above, below = self.settings, F.relu(residual - level), F.relu(-residual - level)
        found = {"both": above - below, "bright": above, "dark": -below}[s.sign]
        if not s.block:
            return found
        side = s.block_side or max(3, in_proportion(7, s.size))  # a block of one pixel would be none
        energy = F.avg_pool2d(found.square().mean(1, keepdim=True), side, 1, side // 2, count_include_pad=False)
        scale = self.deviation * self.local if scale is None else scale
        return found * F.relu(1 - s.block * s.threshold * scale / (energy + 1e-12).sqrt())

    def weighting(self, images: Tensor) -> Tensor:
        """W, (B, 1, H, W) with mean 1 per image: small where the code of a patch is far from all normal codes."""
        if not self.settings.weights:
            return torch.ones_like(images[:, :1])
        codes = self.encoder(images)
        far = self._distance(codes).view(-1, 1, codes.shape[2], codes.shape[3])
        weights = upsample(1 / (self.typical + far), (images.shape[2], images.shape[3]))
        return weights / weights.mean((2, 3), keepdim=True)

    def _distance(self, codes: Tensor) -> Tensor:
        """Of every code to the nearest normal one, (B * h * w,)."""
        rows = self._rows(codes)
        # Found about the centre and taken from the difference: the matmul form loses the digits of small distances.
        index = nearest(rows - self.centre, self.bank.bank - self.centre)[1]
        return (rows - self.bank.bank[index]).square().sum(1).sqrt()

    def _rows(self, codes: Tensor) -> Tensor:
        """(B, code, h, w) -> (B * h * w, code)."""
        return codes.permute(0, 2, 3, 1).reshape(-1, codes.shape[1])

    def _find_centre(self) -> None:
        self.centre.copy_(self.bank.known().mean(0))

    def _add_gaps(self, images: Tensor) -> None:
        far = self._distance(self.encoder(images)).double()
        self.gaps += torch.stack([far.sum(), torch.full_like(far.sum(), far.numel())])

    def _finish_gaps(self) -> None:
        self.typical.copy_((self.gaps[0] / self.gaps[1]).clamp_min(1e-6))

    def _add_residuals(self, images: Tensor) -> None:
        residual = images - self.prior(images)
        if self.settings.positions:
            self.squares += torch.stack([torch.ones_like(residual[:, 0]), residual.square().mean(1)], 1).sum(0)
        bins = ((residual + 1) * (BINS / 2)).long().clamp(0, BINS - 1)
        self.histogram += torch.bincount(bins.flatten(), minlength=BINS)

    def _finish_residuals(self) -> None:
        centres = (torch.arange(BINS, dtype=torch.float64, device=self.histogram.device) + 0.5) * (2 / BINS) - 1
        middle = _median(centres, self.histogram)
        self.deviation.copy_(NORMAL * _median((centres - middle).abs(), self.histogram).clamp_min(1e-4))

    def _take_positions(self) -> None:
        spread = (self.squares[1] / self.squares[0]).sqrt()
        self.local.copy_((spread / self.deviation).clamp_min(1.0))

    def score(self, images: Tensor, size: tuple[int, int]) -> Scores:
        *_, (_, defect) = self.decompose(images)
        own = defect.square().sum(1, keepdim=True).sqrt()
        return Scores(largest(own, self.settings.top), upsample(own, size))


def _relit(background: Tensor, images: Tensor) -> Tensor:
    """*background* with the gain and the offset that fit it best to each image; the gain within a factor of two."""
    mean, target = background.mean((1, 2, 3), keepdim=True), images.mean((1, 2, 3), keepdim=True)
    centred = background - mean
    gain = (centred * (images - target)).mean((1, 2, 3), keepdim=True) / (
        centred.square().mean((1, 2, 3), keepdim=True) + 1e-6
    )
    return gain.clamp(0.5, 2.0) * centred + target


def _median(values: Tensor, counts: Tensor) -> Tensor:
    """The median of *values* (N,), each *counts* times."""
    order = values.argsort()
    cumulated = counts[order].cumsum(0)
    return values[order][torch.searchsorted(cumulated, cumulated[-1:] / 2)[0]]
