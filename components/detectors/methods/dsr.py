"""DSR: anomalies made within a quantised latent space, and two decoders of it (Zavrtanik et al., ECCV 2022).

The general decoder rebuilds anything, the decoder of the product only what is normal; a third network sees the two
images and nothing else, a fourth refines its mask. Memory after fit: the weights, 36 million in the ``paper`` preset.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.detectors.contract import (
    Chosen,
    MethodInfo,
    Optimise,
    Phase,
    PixelDetector,
    Scores,
    Table,
    Together,
    TrainingData,
    pictures_of,
)
from components.detectors.parts.blocks import box_mean, focal, in_proportion, squared_distances, upsample
from components.detectors.parts.convolutions import Decoder, Encoder, UNet, convolution
from components.detectors.parts.quantiser import Latent, Quantiser, doubled, restore, straight_through, to_image
from components.synthesis.masks import perlin

Loss = Callable[[Any], Tensor]


@dataclass(frozen=True)
class DSRSettings:
    """Settings; tuples of three are of the phases: quantiser, decoder and detection, upsampling."""

    size: int = 256
    quantiser: str | None = None  # a file of `loupe bench quantiser`; then the first phase is left out
    quantiser_hash: str | None = None  # SHA-256 that this file must have; None: not checked
    width: int = 128  # of code words and hidden layers
    inner: int = 64
    units: int = 2
    words: int = 4096
    decay: float = 0.99
    commitment: float = 0.25
    restriction: int = 128
    decoder: int = 256  # first width of the product's image net
    stride: int = 1  # of the detection module: 1 in the authors' code, that of the features in their text
    detection: tuple[int, ...] = (64, 128, 256, 256)
    upsampling: tuple[int, ...] = (64, 128, 256, 256)
    epochs: tuple[int, int, int] = (13000, 3300, 660)  # the publication's steps, at 242 images
    batch_size: tuple[int, int, int] = (16, 8, 8)  # the first is of pairs: a fit normal and a natural image
    learning_rate: tuple[float, float, float] = (2e-4, 2e-4, 2e-4)
    drop: tuple[float, float, float] = (1.0, 0.8, 1.0)  # share of the steps behind which the rate is a tenth
    features: float = 1.0  # lambda 2
    image: float = 10.0  # lambda 3
    nearest: float = 0.05  # lambda_s: share of the words, the nearest, that never replace
    farthest: tuple[float, float] = (0.2, 1.0)  # the share of words to draw from is drawn from this range
    turn: tuple[float, float] = (0.4, 0.3)  # probability of a turn by up to 90 degrees; 0 where the pose is fixed
    anomalies: Literal["latent", "image"] = "latent"  # image: pasted textures in place of other words, for comparison
    pasted: tuple[str, ...] = ("perlin_texture",)  # the strategies of the latter
    masks: int = 1000  # ours: Perlin masks made in advance, turned and mirrored at each draw
    smudges: tuple[str, ...] = ("smudge",)
    box: int | None = None  # pixels; side of the mean behind the image score; none: 21 at size 256, in proportion, odd


class DSR(PixelDetector):
    """Map: logit of the upsampling module; image score: largest box mean of the mask before that module."""

    name = "dsr"
    settings_type = DSRSettings
    presets = {
        "paper": DSRSettings(),
        "cpu": DSRSettings(
            size=128,
            width=32,
            inner=16,
            words=256,
            decay=0.95,
            restriction=24,
            decoder=32,
            stride=2,
            detection=(16, 32, 32),
            upsampling=(8, 16, 32),
            epochs=(4, 12, 3),
            batch_size=(8, 8, 8),
            learning_rate=(2e-3, 2e-3, 2e-3),
            drop=(0.8, 0.8, 0.8),
            nearest=0.0,
            farthest=(1.0, 1.0),
            turn=(0.0, 0.0),
        ),
        "tiny": DSRSettings(
            size=64,
            width=16,
            inner=8,
            units=1,
            words=64,
            decay=0.9,
            restriction=8,
            decoder=16,
            detection=(8, 16, 16),
            upsampling=(8, 16, 16),
            epochs=(30, 20, 6),
            batch_size=(4, 4, 4),
            learning_rate=(3e-3, 5e-3, 1e-2),
            turn=(0.0, 0.0),
            masks=40,
        ),
    }
    info = MethodInfo(
        title="DSR",
        paper="Zavrtanik, Kristan, Skočaj: DSR - A Dual Subspace Re-Projection Network for Surface Anomaly Detection",
        year=2022,
        venue="ECCV; arXiv 2208.01521",
        family="reconstruction and segmentation, quantised latent space",
        needs=("synthetic anomalies", "natural images for the quantiser"),
        reconstructed=("what the quantiser is trained on, ImageNet in the publication",),
        published={
            "MVTec AD image AUROC": 98.2,
            "MVTec AD pixel AP": 70.2,
            "KSDD2 image AP": 87.2,
            "KSDD2 pixel AP": 61.4,
        },
    )
    settings: DSRSettings

    def __init__(self, settings: DSRSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        s = settings
        self.latent = Latent(s.width, s.inner, s.units, s.words, s.decay)
        self.specific = ObjectDecoder(s.width, s.inner, s.units, s.restriction, s.decoder)
        self.detection = UNet(6, 1, s.detection, nn.InstanceNorm2d)
        self.upsampling = UNet(7, 1, s.upsampling, nn.InstanceNorm2d)
        if s.quantiser and pretrained:
            restore(self.latent, Path(s.quantiser), s.quantiser_hash)

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        s, normal = self.settings, data.pixels(self.size)
        if not s.quantiser:
            other = data.natural(self.size, pictures := pictures_of(normal))
            both = Together(normal, Chosen(other, [row % pictures for row in range(len(normal))]))
            yield self._stage(0, "quantiser", both, self.quantiser_loss, self.latent)
        self.latent.requires_grad_(False)
        self._pool = perlin_pool(self.size, s.masks)
        learned = nn.ModuleList([self.specific, self.detection])
        if s.anomalies == "latent":
            yield self._stage(1, "detection", normal, self.detection_loss, learned)
        else:
            forged = data.anomalies(s.pasted, self.size)
            triples = Together(forged.clean(self.size), forged.pixels(self.size), forged.masks(self.size))
            yield self._stage(1, "detection", triples, self.pasted_loss, learned)
        made = data.anomalies(s.smudges, self.size)
        smudged = Together(made.clean(self.size), made.pixels(self.size), made.masks(self.size))
        yield self._stage(2, "upsampling", smudged, self.upsampling_loss, self.upsampling)

    def _stage(self, number: int, name: str, table: Table, loss: Loss, learned: nn.Module) -> Optimise:
        """The second phase alone chooses among its epochs: the others do not see, or not move, the image score."""
        s = self.settings
        adam = partial(torch.optim.Adam, lr=s.learning_rate[number])
        return Optimise(
            name,
            table,
            loss,
            list(learned.parameters()),
            adam,
            s.epochs[number],
            s.batch_size[number],
            schedule=lambda done: 1.0 if done < s.drop[number] else 0.1,
            select=number == 1,
        )

    def quantiser_loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Reconstruction of fit normals and as many natural images, with the commitment to the chosen words."""
        images = torch.cat(batch)
        made, committed = self.latent.loss(images, self.settings.commitment)
        with torch.no_grad():
            psnr = decibels(batch[0], made[: len(batch[0])])
            self.latent.psnr.lerp_(psnr, 0.05 if self.latent.psnr else 1.0)  # a running mean over some 20 steps
        return F.mse_loss(made, images) + committed

    def detection_loss(self, images: Tensor) -> Tensor:
        """Focal loss of the mask, distance of restricted features to clean words, of the rebuilt image to the clean."""
        images, _ = turned(images, images, self.settings.turn[0])
        with torch.no_grad():
            clean, corrupted, truth = self.corrupted(images, self._masks(len(images)).to(images.device))
        return self._restored_and_found(images, clean, corrupted, truth)

    def pasted_loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The same loss over anomalies pasted into the images, half of which stay clean."""
        images, forged, masks = batch
        kept = (torch.rand(len(images), 1, 1, 1) < 0.5).to(images.device)
        with torch.no_grad():
            clean, corrupted = self.latent.encode(images), self.latent.encode(torch.where(kept, forged, images))
        return self._restored_and_found(images, clean, corrupted, masks * kept)

    def _restored_and_found(
        self, images: Tensor, clean: tuple[Tensor, Tensor], corrupted: tuple[Tensor, Tensor], truth: Tensor
    ) -> Tensor:
        s = self.settings
        with torch.no_grad():
            general = self.latent.decode(*corrupted)
        features = self.specific.restricted(*corrupted)
        made = self.specific(self.latent, features)
        restricted = sum(F.mse_loss(found, wanted) for found, wanted in zip(features, clean, strict=True))
        mask = self.mask(torch.cat([made.detach(), general], 1))
        return focal(mask, truth) + s.features * restricted + s.image * F.mse_loss(made, images)

    def corrupted(self, images: Tensor, masks: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
        """Clean words, corrupted words, and the truth (B, 1, H, W) in the cells of the level that was corrupted.

        Half of the images are corrupted on both levels, the others on one of them, where *masks* (B, 1, H, W) are 1.
        """
        fine, lo = self.latent.features(images)
        kind = torch.randint(4, (len(images), 1, 1, 1), device=images.device)  # 2: lo alone, 3: hi alone
        at_lo, at_hi = (F.max_pool2d(masks, stride) * (kind != alone) for stride, alone in ((8, 3), (4, 2)))
        clean_lo, bad_lo = self.latent.lo(lo), self._replaced(self.latent.lo, lo, at_lo)
        hi = self.latent.finer(fine, torch.where(kind < 2, bad_lo, clean_lo))
        clean_hi, bad_hi = self.latent.hi(self.latent.finer(fine, clean_lo)), self._replaced(self.latent.hi, hi, at_hi)
        truth = torch.where(kind == 3, F.interpolate(at_hi, scale_factor=4.0), F.interpolate(at_lo, scale_factor=8.0))
        return (clean_lo, clean_hi), (bad_lo, bad_hi), truth

    def _replaced(self, codebook: Quantiser, maps: Tensor, where: Tensor) -> Tensor:
        low, high = self.settings.farthest
        share = low + (high - low) * torch.rand(len(maps), device=maps.device)
        return replaced(codebook, maps, where, share, self.settings.nearest)

    def _masks(self, count: int) -> Tensor:
        """(count, 1, size, size), half of them empty."""
        drawn = self._pool[torch.randint(len(self._pool), (count,))].float()
        drawn = torch.rot90(drawn, int(torch.randint(4, ())), (2, 3))
        drawn = drawn.flip(3) if torch.rand(()) < 0.5 else drawn
        return drawn * (torch.rand(count, 1, 1, 1) < 0.5)

    def upsampling_loss(self, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Focal loss of the refined mask of smudged images; half of the draws stay clean."""
        clean, smudged, masks = batch
        kept = (torch.rand(len(clean), 1, 1, 1) < 0.5).to(clean.device)
        images, masks = turned(torch.where(kept, smudged, clean), masks * kept, self.settings.turn[1])
        with torch.no_grad():
            pair = self.rebuilt(images)
            mask = self.mask(pair).sigmoid()
        return focal(self.upsampling(torch.cat([pair, mask], 1)), masks)

    def rebuilt(self, images: Tensor) -> Tensor:
        """The images of the two decoders, stacked: (B, 6, H, W)."""
        words = self.latent.encode(images)
        made = self.specific(self.latent, self.specific.restricted(*words))
        return torch.cat([made, self.latent.decode(*words)], 1)

    def mask(self, pair: Tensor) -> Tensor:
        """Logits of the detection module at the size of the images, of which it sees *stride* x *stride* means."""
        return upsample(self.detection(F.avg_pool2d(pair, self.settings.stride)), (self.size, self.size))

    def score(self, inputs: Tensor, size: tuple[int, int]) -> Scores:
        pair = self.rebuilt(inputs)
        mask = self.mask(pair).sigmoid()
        side = self.settings.box or in_proportion(21, self.size)
        image = box_mean(mask, side, side // 2).amax((1, 2, 3))
        return Scores(image, upsample(self.upsampling(torch.cat([pair, mask], 1)), size))


def decibels(images: Tensor, made: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of images in [0, 1]."""
    return -10 * (images - made).square().mean().clamp_min(1e-10).log10()


def perlin_pool(size: int, count: int) -> Tensor:
    """(count, 1, size, size) bool, none of them empty, the same ones every time."""
    rng, found = np.random.default_rng(0), list[Tensor]()
    while len(found) < count:
        mask = perlin((size, size), rng)
        if mask.any():
            found.append(torch.from_numpy(mask)[None])
    return torch.stack(found)


def turned(images: Tensor, masks: Tensor, probability: float) -> tuple[Tensor, Tensor]:
    """Both turned by up to 90 degrees either way, what comes in from outside mirrored; *probability* per image."""
    if not probability:
        return images, masks
    chosen = torch.rand(len(images), device=images.device) < probability
    angle = torch.pi * (torch.rand(len(images), device=images.device) - 0.5) * chosen
    cos, sin, none = angle.cos(), angle.sin(), torch.zeros_like(angle)
    frame = torch.stack([torch.stack([cos, -sin, none], 1), torch.stack([sin, cos, none], 1)], 1)
    grid = F.affine_grid(frame, list(images.shape), align_corners=False)
    sample = partial(F.grid_sample, grid=grid, padding_mode="reflection", align_corners=False)
    return sample(images), sample(masks, mode="nearest")


class Restriction(nn.Module):
    """Maps to maps of their size through two halvings and no skip: what is not normal does not get through."""

    def __init__(self, width: int, base: int) -> None:
        super().__init__()
        widths = (base, 2 * base, 4 * base)
        self.encoder = Encoder(width, widths, nn.InstanceNorm2d)
        self.decoder = Decoder(widths[::-1], (0, 0), nn.InstanceNorm2d)
        self.head = nn.Conv2d(base, width, 3, 1, 1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.head(self.decoder(self.encoder(maps)[-1], (None, None))[-1])  # type: ignore[no-any-return]


class ObjectDecoder(nn.Module):
    """The decoder of one product: restriction of both levels, projection onto the given codebooks, an image net."""

    def __init__(self, width: int, inner: int, units: int, base: int, middle: int) -> None:
        super().__init__()
        self.lo, self.hi = Restriction(width, base), Restriction(width, base)
        step = partial(convolution, norm=nn.InstanceNorm2d)
        self.image = nn.Sequential(
            *step(2 * width, middle),
            *step(middle, 2 * middle),
            nn.MaxPool2d(2),
            *step(2 * middle, 2 * middle),
            *step(2 * middle, 4 * middle),
            nn.MaxPool2d(2),
            nn.Conv2d(4 * middle, width // 2, 1),
            doubled(width // 2, width // 2),
            nn.ReLU(),
            doubled(width // 2, width // 2),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, 1, 1),
            *to_image(width, inner, units),
        )

    def restricted(self, lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
        """Features near those of a normal image, not yet words."""
        return self.lo(lo), self.hi(hi)

    def forward(self, latent: Latent, features: tuple[Tensor, Tensor]) -> Tensor:
        """The image of ``restricted`` features."""
        lo, hi = latent.lo(features[0]), latent.hi(features[1])
        if self.training:
            lo, hi = straight_through(features[0], lo), straight_through(features[1], hi)
        return self.image(latent.joined(lo, hi))  # type: ignore[no-any-return]


def replaced(codebook: Quantiser, maps: Tensor, where: Tensor, share: Tensor, nearest: float) -> Tensor:
    """Words of *maps*, at *where* (B, 1, h, w) others: drawn evenly of those ranked in [nearest, share (B,)] of all.

    Ranks are of the distance to the features before quantisation; randomness is torch's.
    """
    words = codebook(maps)
    batch, row, column = where[:, 0].nonzero(as_tuple=True)
    order = squared_distances(maps[batch, :, row, column], codebook.words).argsort(1)
    first = int(nearest * order.shape[1])
    last = (share[batch] * order.shape[1]).clamp_min(first + 1)
    rank = first + (torch.rand(len(order), device=maps.device) * (last - first)).long()
    words[batch, :, row, column] = codebook.words[order.gather(1, rank[:, None])[:, 0]]
    return words
