"""ALPS: adversarially learned perturbations of latent space (Khazaie et al., 2022, arXiv 2207.01106).

An autoencoder against a distorter: a convolutional encoder of its own reads the image and says how to perturb the
autoencoder's latent. It learns to make the reconstruction worse, the autoencoder to rebuild in spite of it; the score
is the reconstruction error. With ``distorter`` off it is the plain autoencoder, the baseline.
Reconstructed: everything but these roles (only the abstract was within reach): networks, bound, losses, numbers.
Memory after fit: two encoders and a decoder, 9.5 million weights in the ``paper`` preset.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from components.detectors.contract import (
    MethodInfo,
    OnePass,
    Optimise,
    Phase,
    PixelDetector,
    Player,
    Scores,
    TrainingData,
    pictures_of,
    scratch,
)
from components.detectors.parts.blocks import GaussianBlur, Positions, largest, upsample
from components.detectors.parts.convolutions import Norm, double, halve
from components.detectors.parts.light import relit

leaky = partial(nn.LeakyReLU, 0.2)


@dataclass(frozen=True)
class ALPSSettings:
    """Settings; every one of *widths* halves the side."""

    size: int = 256
    widths: tuple[int, ...] = (32, 64, 128, 256, 256, 256)  # reconstructed
    latent: int = 256  # channels of the latent map; reconstructed
    norm: Literal["batch", "group"] = "batch"  # of the networks: over the batch, or within each image; reconstructed
    distorter: bool = True  # False: the plain autoencoder
    perturbation: Literal["additive", "mask"] = "additive"  # reconstructed: added to the latent, or a mask on it
    bound: float = 0.2  # of a perturbation, in units of the latent's root mean square; reconstructed
    ramp: float = 1 / 3  # share of the training over which the bound grows to its full size; reconstructed
    clean: float = 0.5  # weight of the error without perturbation in the autoencoder's loss; reconstructed
    ascents: int = 1  # steps of the distorter to one of the autoencoder; reconstructed
    restraint: float = 1e-3  # weight of the perturbation's own size in the distorter's loss; reconstructed
    scoring: Literal["perturbed", "clean"] = "perturbed"  # reconstructed: whether the distorter stays when scoring
    epochs: int = 100  # reconstructed
    batch_size: int = 64  # reconstructed
    learning_rate: float = 2e-4  # of the autoencoder; reconstructed
    distorter_rate: float = 1e-4  # reconstructed
    clip: float = 1.0  # longest gradient of either; reconstructed
    brightness: bool = False  # ours: gain and offset of what is rebuilt are fitted to each image
    blur: float = 4.0  # sigma in pixels of the working size; reconstructed
    positions: bool = False  # ours: each position of the map by its mean and deviation on the fit normals
    top: float = 1.0  # share of the map whose mean is the image score, 1: the mean error; reconstructed


def _grouped(width: int) -> nn.Module:
    """In some 8 groups. A perturbed and a clean latent, whose batches would be of one statistic, meet in a decoder."""
    return nn.GroupNorm(next(n for n in range(min(8, width), 0, -1) if width % n == 0), width)


NORMS: dict[str, Norm] = {"batch": nn.BatchNorm2d, "group": _grouped}


class Down(nn.Sequential):
    """An image to a latent map, (B, 3, H, W) -> (B, latent, h, w). Autoencoder and distorter have one each."""

    def __init__(self, widths: tuple[int, ...], latent: int, norm: Norm = nn.BatchNorm2d) -> None:
        steps = [layer for a, b in pairwise((3, *widths)) for layer in halve(a, b, norm, leaky)]
        super().__init__(*steps, nn.Conv2d(widths[-1], latent, 3, padding=1))


class Up(nn.Sequential):
    """A latent map to an image in [0, 1]."""

    def __init__(self, widths: tuple[int, ...], latent: int, norm: Norm = nn.BatchNorm2d) -> None:
        path = (latent, *widths[-2::-1])
        steps = [layer for a, b in pairwise(path) for layer in double(a, b, norm)]
        super().__init__(*steps, *double(path[-1], 3, lambda _: nn.Identity(), nn.Sigmoid))


class ALPS(PixelDetector):
    """Map: squared error of the reconstruction, blurred; image score: mean of its largest."""

    name = "alps"
    settings_type = ALPSSettings
    presets = {
        "paper": ALPSSettings(),
        "cpu": ALPSSettings(
            size=128,
            widths=(16, 32, 64, 128),
            latent=32,
            norm="group",
            bound=0.5,
            ascents=3,
            restraint=1e-4,
            epochs=20,
            batch_size=8,
            learning_rate=2e-3,
            distorter_rate=1e-3,
            brightness=True,
            blur=2.0,
            positions=True,
            top=1e-3,
        ),
        "tiny": ALPSSettings(
            size=64,
            widths=(8, 16, 16),
            latent=4,
            epochs=4,
            batch_size=4,
            learning_rate=1e-2,
            distorter_rate=5e-3,
            blur=1.0,
        ),
    }
    info = MethodInfo(
        title="ALPS",
        paper="Khazaie, Wong, Jewell, Mohsenzadeh: Anomaly Detection with Adversarially Learned Perturbations of "
        "Latent Space",
        year=2022,
        venue="arXiv 2207.01106",
        family="reconstruction, adversarial",
        needs=("pixels",),
        reconstructed=(
            "networks",
            "bound of the perturbation",
            "steps of the distorter",
            "normalisation",
            "losses",
            "path at scoring",
            "light fitted to each image",
            "all numbers",
        ),
    )
    settings: ALPSSettings
    strength: Tensor
    ratio: Tensor
    errors: Tensor

    def __init__(self, settings: ALPSSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s = settings
        norm = NORMS[s.norm]
        self.encoder, self.decoder = Down(s.widths, s.latent, norm), Up(s.widths, s.latent, norm)
        self.distorter = Down(s.widths, s.latent, norm) if s.distorter else None
        self.blur = GaussianBlur(s.blur)
        self.positions = Positions(s.size**2, s.positions)
        self.register_buffer("strength", torch.zeros(()))  # the share of the bound that is reached
        # Error perturbed / clean, of the last batches while it trains and of the normals at its end: 1 is a distorter
        # that does nothing, above 5 an autoencoder that lost.
        self.register_buffer("ratio", torch.ones(()))
        scratch(self, "errors", torch.zeros(2, dtype=torch.float64))

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, table = self.settings, data.pixels(self.size)
        adam = partial(torch.optim.Adam, betas=(0.5, 0.999))
        rivals: tuple[Player, ...] = ()
        if self.distorter is not None:
            rate = partial(adam, lr=s.distorter_rate)
            rivals = (Player(self.distorter_loss, list(self.distorter.parameters()), rate, s.clip, s.ascents),)
        steps = s.ramp * s.epochs * -(-pictures_of(table) // s.batch_size)
        yield Optimise(
            "game",
            table,
            partial(self.loss, growth=1 / max(1.0, steps)),
            [*self.encoder.parameters(), *self.decoder.parameters()],
            partial(adam, lr=s.learning_rate),
            epochs=s.epochs,
            batch_size=s.batch_size,
            clip=s.clip,
            rivals=rivals,
            told=self._told,
        )
        if self.distorter is not None:
            yield OnePass("ratio", table, self._add, self._finish, sums=True)
        yield from self.positions.phases(table, self._own)

    def perturbation(self, images: Tensor, latent: Tensor) -> Tensor:
        """What the distorter adds to *latent* (B, C, h, w): at most ``bound`` times its root mean square."""
        assert self.distorter is not None
        raw, reach = self.distorter(images), self.strength * self.settings.bound
        if self.settings.perturbation == "mask":
            return -reach * latent * torch.sigmoid(raw)
        # The scale keeps its gradient: a latent that grows meets a perturbation that grows, so growing is no way out.
        return reach * latent.square().mean((1, 2, 3), keepdim=True).add(1e-12).sqrt() * torch.tanh(raw)

    def loss(self, images: Tensor, growth: float = 0.0) -> Tensor:
        """The autoencoder's: error from the perturbed latent, and some of the clean one. The bound grows meanwhile."""
        latent = self.encoder(images)
        clean = (images - self.decoder(latent)).square().mean()
        if self.distorter is None:
            return clean
        self.strength.add_(growth).clamp_(max=1)
        perturbed = self.decoder(latent + self.perturbation(images, latent))
        worse = (images - perturbed).square().mean()
        self.ratio.lerp_((worse / clean.clamp_min(1e-12)).detach(), 0.05)  # over some 20 steps, for the log
        return worse + self.settings.clean * clean

    def distorter_loss(self, images: Tensor) -> Tensor:
        """The opposite: gradient ascent on the error from the perturbed latent. No gradient reaches the encoder."""
        with torch.no_grad():
            latent = self.encoder(images)
        added = self.perturbation(images, latent)
        error = (images - self.decoder(latent + added)).square().mean()
        # In units of the latent: of one that grows, the restraint would else outgrow the error and still the distorter.
        size = (added / latent.square().mean().sqrt().clamp_min(1e-12)).square().mean()
        return self.settings.restraint * size - error

    def _told(self) -> dict[str, float]:
        return {"perturbed over clean error": float(self.ratio)} if self.distorter is not None else {}

    def error(self, images: Tensor, perturbed: bool) -> Tensor:
        """Squared error averaged over channels, (B, 1, H, W)."""
        latent = self.encoder(images)
        if perturbed and self.distorter is not None:
            latent = latent + self.perturbation(images, latent)
        rebuilt = self.decoder(latent)
        if self.settings.brightness:
            rebuilt = relit(rebuilt, images)
        return (images - rebuilt).square().mean(1, keepdim=True)

    def _own(self, images: Tensor) -> Tensor:
        return self.blur(self.error(images, self.settings.scoring == "perturbed"))  # type: ignore[no-any-return]

    def _add(self, images: Tensor) -> None:
        self.errors += torch.stack([self.error(images, perturbed).double().sum() for perturbed in (True, False)])

    def _finish(self) -> None:
        self.ratio.copy_(self.errors[0] / self.errors[1].clamp_min(1e-12))

    def score(self, images: Tensor, size: tuple[int, int]) -> Scores:
        own = self.positions(self._own(images))
        return Scores(largest(own, self.settings.top), upsample(own, size))
