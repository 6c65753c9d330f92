"""A codebook learned by moving averages (van den Oord et al., NeurIPS 2017, appendix A), and an autoencoder of two."""

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from components.core.artefacts import file_hash
from components.core.errors import DataError
from components.detectors.parts.blocks import squared_distances
from components.detectors.parts.memory import as_maps, as_queries
from components.detectors.parts.together import firsts, summed

TIE = 3e-3  # at a third of it the map of real tiles came near the limit of the parity gate


class Quantiser(nn.Module):
    """*size* code words of *width*: maps (B, C, h, w) -> their nearest words, same shape.

    Words are buffers that ``revive`` and ``learn`` move, no parameters: an optimiser never sees them.
    """

    words: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, width: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("words", torch.randn(size, width))
        self.register_buffer("counts", torch.zeros(size))
        self.register_buffer("sums", torch.zeros(size, width))

    def codes(self, maps: Tensor) -> Tensor:
        """Number of the nearest word at every position, (B, h, w)."""
        near = self._distances(maps).argmin(1)
        return near.view(maps.shape[0], maps.shape[2], maps.shape[3])

    def _distances(self, maps: Tensor) -> Tensor:
        """Squared, (B * h * w, size); from the mean of the words, as large numbers would be rounded in difference."""
        words, centre = self._centred()
        return squared_distances(as_queries(maps)[0] - centre, words)

    def _centred(self) -> tuple[Tensor, Tensor]:
        centre = self.words.sum(0) / len(self.words)
        return self.words - centre, centre

    def lookup(self, codes: Tensor) -> Tensor:
        """(B, h, w) -> (B, C, h, w)."""
        return self.words[codes].permute(0, 3, 1, 2)

    def forward(self, maps: Tensor) -> Tensor:
        return self.lookup(self.codes(maps)) if self.training else self._settled(maps)

    def _settled(self, maps: Tensor) -> Tensor:
        """The nearest words; of words that tie, as good as, the middle.

        At a tie rounding would decide, in the exported graph otherwise than here. What rounding can move is the
        product of the distance and the extent of the codebook: TIE is relative to it.
        """
        distances = self._distances(maps)
        least = distances.amin(1, keepdim=True)
        extent = (self._centred()[0].square().sum() / len(self.words)).sqrt()
        weights = ((least - distances) / (TIE * extent * least.sqrt() + 1e-12)).softmax(1)
        return as_maps((weights @ self.words)[None], maps)

    @torch.no_grad()
    def revive(self, maps: Tensor, least: float = 0.1) -> None:
        """Put words that were chosen less than *least* times per batch onto positions of *maps*, drawn by torch.

        Of a new codebook that is every word: it starts within the features, whatever their scale.
        """
        rows, idle = as_queries(maps)[0], self.counts < least
        drawn = firsts(rows[torch.randint(len(rows), (len(self.words),), device=rows.device)].to(self.words.dtype))
        self.counts.masked_fill_(idle, 1)
        for kept in (self.words, self.sums):
            kept.copy_(torch.where(idle[:, None], drawn, kept))

    @torch.no_grad()
    def learn(self, maps: Tensor, codes: Tensor) -> None:
        """Move every word towards the mean of what it was chosen for; words that nothing chooses stay."""
        rows = as_queries(maps)[0].to(self.words.dtype)
        chosen = F.one_hot(codes.flatten(), len(self.words)).to(rows.dtype)
        with torch.autocast(maps.device.type, enabled=False):  # running means in bfloat16 would stand still
            self.counts.lerp_(summed(chosen.sum(0)), 1 - self.decay)
            self.sums.lerp_(summed(chosen.T @ rows), 1 - self.decay)
        total = self.counts.sum()
        smooth = (self.counts + 1e-5) / (total + len(self.words) * 1e-5) * total  # Laplace: no division by zero
        self.words.copy_(self.sums / smooth[:, None])


def straight_through(maps: Tensor, quantised: Tensor) -> Tensor:
    """*quantised* with the gradient of *maps*."""
    return maps + (quantised - maps).detach()


class Unit(nn.Module):
    """Residual unit that activates first: 3 x 3 to *inner* channels, 1 x 1 back."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.spread, self.join = nn.Conv2d(width, inner, 3, 1, 1, bias=False), nn.Conv2d(inner, width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.join(F.relu(self.spread(F.relu(x))))


def _units(width: int, inner: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Unit(width, inner) for _ in range(count)), nn.ReLU())


def doubled(entering: int, leaving: int) -> nn.ConvTranspose2d:
    """Twice the side."""
    return nn.ConvTranspose2d(entering, leaving, 4, 2, 1)


def to_image(width: int, inner: int, units: int) -> tuple[nn.Module, ...]:
    """(B, width, H / 4, W / 4) -> (B, 3, H, W), linear at the end."""
    return _units(width, inner, units), doubled(width, width // 2), nn.ReLU(), doubled(width // 2, 3)


class Latent(nn.Module):
    """Images as code words on two levels, and the general appearance decoder (a VQ-VAE-2, Razavi et al., 2019).

    *lo* has stride 8, *hi* stride 4; *psnr* is what the general decoder reached on the fit normals in training, in dB.
    """

    psnr: Tensor

    def __init__(self, width: int, inner: int, units: int, words: int, decay: float) -> None:
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv2d(3, width // 2, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width // 2, width, 4, 2, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, 1, 1),
            _units(width, inner, units),
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(width, width, 4, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 3, 1, 1), _units(width, inner, units)
        )
        self.before_lo, self.before_hi = nn.Conv2d(width, width, 1), nn.Conv2d(2 * width, width, 1)
        self.lo, self.hi = Quantiser(words, width, decay), Quantiser(words, width, decay)
        self.up = doubled(width, width)
        self.general = nn.Sequential(nn.Conv2d(2 * width, width, 3, 1, 1), *to_image(width, inner, units))
        self.register_buffer("psnr", torch.zeros(()))

    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What enters the quantisation: (B, C, H / 4, W / 4), which still needs ``finer``, and (B, C, H / 8, W / 8)."""
        fine = self.fine(images)
        return fine, self.before_lo(self.coarse(fine))

    def finer(self, fine: Tensor, lo: Tensor) -> Tensor:
        """Features of the hi level, given the words of the lo level."""
        return self.before_hi(torch.cat([fine, self.up(lo)], 1))  # type: ignore[no-any-return]

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Words of the lo and the hi level."""
        fine, lo = self.features(images)
        lo = self.lo(lo)
        return lo, self.hi(self.finer(fine, lo))

    def joined(self, lo: Tensor, hi: Tensor) -> Tensor:
        """What a decoder starts from: (B, 2 C, H / 4, W / 4)."""
        return torch.cat([self.up(lo), hi], 1)

    def decode(self, lo: Tensor, hi: Tensor) -> Tensor:
        return self.general(self.joined(lo, hi))  # type: ignore[no-any-return]

    def loss(self, images: Tensor, commitment: float) -> tuple[Tensor, Tensor]:
        """Reconstructions and the commitment loss; moves both codebooks."""
        fine, lo = self.features(images)
        chosen_lo = _learned(self.lo, lo)
        hi = self.finer(fine, straight_through(lo, chosen_lo))
        chosen_hi = _learned(self.hi, hi)
        committed = F.mse_loss(lo, chosen_lo) + F.mse_loss(hi, chosen_hi)
        made = self.decode(straight_through(lo, chosen_lo), straight_through(hi, chosen_hi))
        return made, commitment * committed


def _learned(codebook: Quantiser, maps: Tensor) -> Tensor:
    """The words of *maps* before the codebook moves."""
    codebook.revive(maps.detach())
    codes = codebook.codes(maps.detach())
    chosen = codebook.lookup(codes).clone()
    codebook.learn(maps.detach(), codes)
    return chosen


def restore(latent: Latent, path: Path, expected: str | None) -> None:
    """Fill *latent* from a checkpoint. Raises DataError when it is missing, another one, or of other settings."""
    if not path.exists():
        raise DataError(f"{path}: no such file; write it with loupe bench quantiser, or unset dsr.quantiser")
    if expected and file_hash(path) != expected:
        raise DataError(f"{path}: its SHA-256 is not dsr.quantiser_hash; correct one of them")
    state, wanted = load_file(path), latent.state_dict()
    if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in wanted.items()}:
        raise DataError(f"{path}: of other settings; dsr.width, inner, units and words must be those it was made with")
    latent.load_state_dict(state)
