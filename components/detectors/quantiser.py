"""A codebook learned by moving averages (van den Oord et al., NeurIPS 2017, appendix A)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.detectors.blocks import squared_distances
from components.detectors.memory import positions


class Quantiser(nn.Module):
    """*size* code words of *width*: maps (B, C, h, w) -> their nearest words, same shape.

    Words are buffers that ``learn`` moves, no parameters: an optimiser never sees them.
    """

    words: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, size: int, width: int, decay: float = 0.99) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("words", torch.randn(size, width))
        self.register_buffer("counts", torch.ones(size))
        self.register_buffer("sums", self.words.clone())

    def codes(self, maps: Tensor) -> Tensor:
        """Number of the nearest word at every position, (B, h, w)."""
        near = squared_distances(positions(maps)[0], self.words).argmin(1)
        return near.view(maps.shape[0], maps.shape[2], maps.shape[3])

    def lookup(self, codes: Tensor) -> Tensor:
        """(B, h, w) -> (B, C, h, w)."""
        return self.words[codes].permute(0, 3, 1, 2)

    def forward(self, maps: Tensor) -> Tensor:
        return self.lookup(self.codes(maps))

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
