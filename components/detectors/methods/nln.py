"""NLN: novelty by the reconstructions of nearest neighbours (Mesarcik et al., Array 14, 2022, arXiv 2111.06150).

An autoencoder of patches; a patch is compared not with its own reconstruction, which may have learned to show the
anomaly, but with those of the normal patches nearest to it in latent space. The distance to these joins in.
Five kinds of autoencoder (``nln_autoencoders.py``) behind one interface; ``scoring`` autoencoder is the plain baseline.
Differs from the released code: the number of neighbours is fixed, and both terms are standardised on the fit normals
(each against the patches of other images), not by what the test images turn out to be.
Memory after fit: bank_size x latent float32; neighbours are decoded anew from it, no image is kept.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from components.core.errors import SettingsError
from components.detectors.contract import MethodInfo, OnePass, Optimise, Phase, PixelDetector, Scores, TrainingData
from components.detectors.parts.autoencoders import KINDS, MEASURES
from components.detectors.parts.blocks import (
    POSITIONS,
    GaussianBlur,
    Positions,
    Standardise,
    largest,
    squared_distances,
    upsample,
)
from components.detectors.parts.coreset import FAR
from components.detectors.parts.draw import Draw
from components.detectors.parts.light import light

BARRED = 1e12  # squared distance that is added to a latent which does not count: behind rows that hold nothing


@dataclass(frozen=True)
class NLNSettings:
    """Settings; *neighbours* is K, *share* alpha of the paper."""

    size: int = 1024
    patch: int = 128  # side, 8 times a power of two
    stride: int = 128  # of the patches; below their side they overlap and are averaged (ours: the paper has none of it)
    kind: Literal["ae", "vae", "aae", "dae_disc", "ganomaly"] = "ae"
    loss: Literal["entropy", "structure"] = "entropy"  # of what is rebuilt, as published; ours: L1 and 1 - SSIM
    width: int = 32
    latent: int = 128
    neighbours: int = 5  # all there are where there are fewer
    share: float = 0.6  # of the error in the image score, the rest is the distance
    map_share: float = 0.25  # of the error in the map
    brightness: bool = False  # ours: gain and offset of what is rebuilt are fitted to each image
    blur: float = 0.0  # sigma in pixels over the map of errors, 0: none; ours
    top: float = 1.0  # share of the map of errors whose mean is the image's; ours, 1: the mean of all as published
    positions: bool = False  # ours: each position of both terms by its mean and deviation on the fit normals
    scoring: Literal["nln", "autoencoder"] = "nln"  # autoencoder: error of an image's own reconstruction
    bank_size: int = 20_000  # latents at most, a drawn subset of more; ours
    turned: bool = True  # patches are turned by random quarters in training
    crops: int = 64  # random patches per image beside the grid, from its central 80 %
    epochs: int = 50
    batch_size: int = 16  # images; the paper has 1024 patches
    learning_rate: float | None = None  # of the autoencoder; none: the published one of its kind
    adversary_rate: float | None = None  # of the adversarial steps; none: the published one of the kind

    def __post_init__(self) -> None:
        ratio = self.patch // 8
        if self.patch % 8 or ratio < 2 or ratio & (ratio - 1):
            raise SettingsError(f"patch is {self.patch}: give 8 times a power of two, at least 16")
        if (self.size - self.patch) % self.stride or self.stride > self.patch:
            raise SettingsError(f"stride is {self.stride}: patches of {self.patch} must cover size {self.size} exactly")


class NLN(PixelDetector):
    """Map and image score: error against the neighbours' reconstructions and latent distance, standardised, weighed."""

    name = "nln"
    settings_type = NLNSettings
    presets = {
        "paper": NLNSettings(),
        "cpu": NLNSettings(
            size=128,
            patch=32,
            stride=16,
            loss="structure",
            width=16,
            latent=32,
            neighbours=5,
            bank_size=5000,
            turned=False,
            crops=0,
            share=0.8,
            blur=1.0,
            top=1e-3,
            positions=True,
            epochs=15,
            batch_size=8,
        ),
        "tiny": NLNSettings(
            size=64,
            patch=16,
            stride=16,
            kind="aae",
            width=8,
            latent=8,
            neighbours=2,
            bank_size=128,
            turned=False,
            crops=0,
            epochs=4,
            batch_size=4,
            learning_rate=1e-2,
            adversary_rate=1e-3,
        ),
    }
    info = MethodInfo(
        title="NLN",
        paper="Mesarcik, Ranguelova, Boonstra, van Nieuwpoort: Improving novelty detection using the reconstructions "
        "of nearest neighbours",
        year=2022,
        venue="Array 14; arXiv 2111.06150",
        family="reconstruction, nearest neighbours in latent space",
        needs=("pixels",),
        reconstructed=(
            "cap on the latents that are searched",
            "scale of the two terms from fit normals",
            "light fitted to each image",
            "L1 and SSIM as the loss",
            "where in a patch the errors of kinds dae_disc and ganomaly lie",
        ),
    )
    settings: NLNSettings
    bank: Tensor
    centre: Tensor
    owner: Tensor
    count: Tensor
    seen: Tensor
    overlap: Tensor

    def __init__(self, settings: NLNSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s = settings
        self.autoencoder = KINDS[s.kind](s.patch, s.width, s.latent)
        self.autoencoder.measure = MEASURES[s.loss]
        self.steps = range(0, s.size - s.patch + 1, s.stride)
        self.blur = GaussianBlur(s.blur) if s.blur else torch.nn.Identity()
        self.positions = Positions(2 * s.size**2, s.positions)
        self.map_terms, self.image_terms = Standardise(2, True), Standardise(2, True)  # error, distance
        self.register_buffer("bank", torch.full((s.bank_size, s.latent), FAR))
        self.register_buffer("centre", torch.zeros(s.latent))  # of the latents, see neighbours
        self.register_buffer("owner", torch.full((s.bank_size,), -1))  # number of the image behind a latent
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("seen", torch.zeros(3, dtype=torch.int64))  # images, by phase
        self.draw = Draw(s.bank_size, "latents")
        ones = torch.ones(len(self.steps) ** 2, 1, s.patch, s.patch)
        self.register_buffer("overlap", self._sum(ones), persistent=False)

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, table = self.settings, data.pixels(self.size)
        first, *rivals = self.autoencoder.players(self.training_patches, s.learning_rate, s.adversary_rate)
        yield Optimise(
            s.kind,
            table,
            first.loss,
            first.parameters,
            first.optimiser,
            epochs=s.epochs,
            batch_size=s.batch_size,
            select=False,
            rivals=tuple(rivals),
        )
        self.draw.expect(len(table) * len(self.steps) ** 2)
        yield OnePass("latents", table, self._add_latents, self._find_centre)
        yield OnePass("scale", table, self._add_terms, self._finish_terms)
        if (
            s.positions
        ):  # what each position is, the pass before has found; here the scale of terms that are taken by it
            yield OnePass(POSITIONS, table, self._add_positioned, self._take_positions, optional=True)

    def patches(self, images: Tensor, steps: range | None = None) -> Tensor:
        """(B, C, size, size) -> (B * n * n, C, patch, patch), row by row; *steps* replaces those of ``stride``."""
        side, steps = self.settings.patch, steps or self.steps
        rows = torch.stack([images[:, :, y : y + side] for y in steps], 1)
        return torch.stack([rows[..., x : x + side] for x in steps], 2).flatten(0, 2)

    def stitch(self, patches: Tensor) -> Tensor:
        """The way back, mean where patches overlap: (B * n * n, C, patch, patch) -> (B, C, size, size)."""
        return self._sum(patches) / self.overlap

    def _sum(self, patches: Tensor) -> Tensor:
        count, room = len(self.steps), self.settings.size - self.settings.patch
        grid = patches.view(-1, count, count, *patches.shape[1:])
        rows = sum(F.pad(grid[:, :, i], (x, room - x)) for i, x in enumerate(self.steps))
        return sum(F.pad(rows[:, i], (0, 0, y, room - y)) for i, y in enumerate(self.steps))  # type: ignore

    def training_patches(self, images: Tensor) -> Tensor:
        """Patches side by side, and with them random crops; turned by random quarters, one turn per batch."""
        s = self.settings
        apart = range(0, s.size - s.patch + 1, s.patch)  # what overlaps would be learned several times
        found = [self.patches(images, apart), *(self._crop(images) for _ in range(s.crops))]
        quarters = int(torch.randint(4, ())) if s.turned else 0
        return torch.rot90(torch.cat(found), quarters, (2, 3))

    def _crop(self, images: Tensor) -> Tensor:
        """One patch per image from the central 80 %, at a place that the batch shares."""
        low = min(self.size // 10, (self.size - self.settings.patch) // 2)
        y, x = (int(v) for v in torch.randint(low, self.size - low - self.settings.patch + 1, (2,)))
        return images[:, :, y : y + self.settings.patch, x : x + self.settings.patch]

    def neighbours(self, latents: Tensor, barred: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The K nearest latents of the bank (N, K, D), their distances (N, K) and what each counts (N, K), 1 in all.

        *barred* (N,) are numbers of images whose latents do not count, unless the bank holds no others. Of fewer than K
        latents all count alike; in place of those that are missing the latent itself is given, which counts nothing.
        """
        # About the centre: the matmul form would lose the digits of distances that are small beside the latents.
        far = squared_distances(latents - self.centre, self.bank - self.centre)
        hidden = self.owner < 0
        if barred is not None:
            own = barred[:, None] == self.owner
            own = own & (~own & ~hidden).any(1, keepdim=True)
            far, hidden = far + BARRED * own, own | hidden
        chosen = far.topk(min(self.settings.neighbours, len(self.bank)), dim=1, largest=False).indices
        used = ~hidden.expand_as(far).gather(1, chosen)
        found = torch.where(used[..., None], self.bank[chosen], latents[:, None])
        share = used / used.sum(1, keepdim=True).clamp_min(1)
        return found, (latents[:, None] - found).square().sum(2).sqrt(), share

    def terms(self, images: Tensor, barred: Tensor | None = None) -> Tensor:
        """Error against the neighbours' reconstructions, and latent distance: maps (B, 2, size, size)."""
        patches = self.patches(images)
        latents = self.autoencoder.encode(patches)
        found, distances, share = self.neighbours(latents, barred)
        rebuilt = self.autoencoder.decode(found.flatten(0, 1)).unflatten(0, found.shape[:2])
        shares = share.T[..., None, None, None]
        if self.settings.brightness:  # one light for all of an image, by what its neighbours make of it together
            rebuilt = self._relit(rebuilt, (rebuilt.transpose(0, 1) * shares).sum(0), images)
        errors = [self.autoencoder.error(patches, latents, rebuilt[:, k]) * shares[k] for k in range(len(shares))]
        constant = (share * distances).sum(1).view(-1, 1, 1, 1).expand_as(errors[0])  # all of a patch is equally far
        return torch.cat([self.blur(self.stitch(torch.stack(errors).sum(0))), self.stitch(constant)], 1)

    def own_error(self, images: Tensor) -> Tensor:
        """The plain autoencoder's: error of the image's own reconstruction, (B, 1, size, size)."""
        patches = self.patches(images)
        latents = self.autoencoder.encode(patches)
        rebuilt = self.autoencoder.decode(latents)
        if self.settings.brightness:
            rebuilt = self._relit(rebuilt, rebuilt, images)
        return self.stitch(self.autoencoder.error(patches, latents, rebuilt))

    def _relit(self, patches: Tensor, typical: Tensor, images: Tensor) -> Tensor:
        """*patches* (B * n * n, ...) in the light of their images, to which *typical*, a patch for each, is fitted."""
        count, rest = len(self.steps) ** 2, [1] * (patches.dim() - 1)
        found = light(self.stitch(typical), images)
        gain, offset = (values.flatten(1).expand(-1, count).reshape(-1, *rest) for values in found)
        return gain * patches + offset

    def _add_latents(self, images: Tensor) -> None:
        patches, per_image = self.patches(images), len(self.steps) ** 2
        first = int(self.seen[0]) * per_image
        chosen, at = self.draw.among(first, len(patches))
        chosen = chosen.to(images.device)
        if len(chosen):
            self.bank[at : at + len(chosen)] = self.autoencoder.encode(patches[chosen])
            self.owner[at : at + len(chosen)] = (first + chosen) // per_image
        self.count += len(chosen)
        self.seen[0] += len(images)

    def _find_centre(self) -> None:
        self.centre.copy_(self.bank[: int(self.count)].mean(0))

    def _add_terms(self, images: Tensor) -> None:
        maps = self._as_new(images, 1)
        self._add_maps(maps)
        if self.settings.positions:
            self.positions.add(maps)

    def _add_positioned(self, images: Tensor) -> None:
        self._add_maps(self.positions.ahead(self._as_new(images, 2)))

    def _add_maps(self, maps: Tensor) -> None:
        self.map_terms.add(maps)
        self.image_terms.add(self._image_terms(maps))

    def _take_positions(self) -> None:
        self.positions.finish()
        self._finish_terms()

    def _as_new(self, images: Tensor, phase: int) -> Tensor:
        """Terms of normals as new images would meet the bank: without the latents of their own."""
        numbers = self.seen[phase] + torch.arange(len(images), device=images.device)
        self.seen[phase] += len(images)
        return self.terms(images, numbers.repeat_interleave(len(self.steps) ** 2))

    def _finish_terms(self) -> None:
        for terms in (self.map_terms, self.image_terms):
            terms.finish()
            terms.sums.zero_()  # there may be another pass

    def score(self, images: Tensor, size: tuple[int, int]) -> Scores:
        if self.settings.scoring == "autoencoder":
            own = self.own_error(images)
            return Scores(own.mean((1, 2, 3)), upsample(own, size))
        maps = self.positions(self.terms(images))
        whole = _weigh(self.image_terms(self._image_terms(maps)), self.settings.share)
        return Scores(whole[:, 0, 0, 0], upsample(_weigh(self.map_terms(maps), self.settings.map_share), size))

    def _image_terms(self, maps: Tensor) -> Tensor:
        """The error of an image and its largest distance: (B, 2, H, W) -> (B, 2, 1, 1)."""
        found = [largest(maps[:, :1], self.settings.top), maps[:, 1:].amax((1, 2, 3))]
        return torch.stack(found, 1)[:, :, None, None]


def _weigh(terms: Tensor, share: float) -> Tensor:
    return share * terms[:, :1] + (1 - share) * terms[:, 1:]
