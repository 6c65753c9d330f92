"""A codebook learned by moving averages (van den Oord et al., NeurIPS 2017, appendix A)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.detectors.blocks import squared_distances
from components.detectors.memory import at_positions, positions

TIE = 3e-4


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
        return squared_distances(positions(maps)[0] - centre, words)

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
        return at_positions((weights @ self.words)[None], maps)

    @torch.no_grad()
    def revive(self, maps: Tensor, least: float = 0.1) -> None:
        """Put words that were chosen less than *least* times per batch onto positions of *maps*, drawn by torch.

        Of a new codebook that is every word: it starts within the features, whatever their scale.
        """
        rows, idle = positions(maps)[0], self.counts < least
        drawn = rows[torch.randint(len(rows), (len(self.words),), device=rows.device)].to(self.words.dtype)
        self.counts.masked_fill_(idle, 1)
        for kept in (self.words, self.sums):
            kept.copy_(torch.where(idle[:, None], drawn, kept))

    @torch.no_grad()
    def learn(self, maps: Tensor, codes: Tensor) -> None:
        """Move every word towards the mean of what it was chosen for; words that nothing chooses stay."""
        rows, chosen = positions(maps)[0], F.one_hot(codes.flatten(), len(self.words)).to(maps.dtype)
        self.counts.lerp_(chosen.sum(0), 1 - self.decay)
        self.sums.lerp_(chosen.T @ rows, 1 - self.decay)
        total = self.counts.sum()
        smooth = (self.counts + 1e-5) / (total + len(self.words) * 1e-5) * total  # Laplace: no division by zero
        self.words.copy_(self.sums / smooth[:, None])


def straight_through(maps: Tensor, quantised: Tensor) -> Tensor:
    """*quantised* with the gradient of *maps*."""
    return maps + (quantised - maps).detach()
