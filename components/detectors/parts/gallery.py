"""Normal images to be found again by likeness, as a detector's state: they go into the exported graph."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.detectors.parts.draw import Draw

ITSELF = 1 - 1e-4  # cosine from which on two images are one: features are stored in float16
HIDDEN = -2.0  # below any cosine


class Gallery(nn.Module):
    """Up to *count* images, found by the cosine of their mean features (Xing et al., IEEE TCSVT 34(6), 2024).

    Of more images a drawn subset is kept.
    """

    images: Tensor
    signatures: Tensor
    seen: Tensor

    def __init__(self, count: int, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("images", torch.zeros((count, 3, size, size), dtype=torch.uint8))
        self.register_buffer("signatures", torch.zeros((count, channels)))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))
        self.draw = Draw(count, "gallery")

    def expect(self, offered: int) -> None:
        """So many will be offered."""
        self.draw.expect(offered)

    def add(self, batch: tuple[Tensor, list[Tensor]]) -> None:
        """Images (B, 3, size, size) in [0, 1] and their features, deepest last."""
        images, features = batch
        chosen, at = self.draw.among(int(self.seen), len(images))
        self.images[at : at + len(chosen)] = (images[chosen] * 255).round().byte()
        self.signatures[at : at + len(chosen)] = signature_of(features)[chosen]
        self.seen += len(images)

    def likeness(self, features: list[Tensor]) -> Tensor:
        """Cosine of each of the batch with each one kept: (B, count)."""
        cosines = signature_of(features) @ self.signatures.T
        return torch.where(self.signatures.any(1), cosines, HIDDEN)

    def nearest(self, features: list[Tensor]) -> Tensor:
        """The most similar image for each of the batch: (B, 3, size, size) in [0, 1]."""
        return self._images(self.likeness(features).argmax(1))

    def drawn(self, features: list[Tensor], similar: int) -> Tensor:
        """One at random of the *similar* most similar ones that are not the image itself: (B, 3, size, size)."""
        cosines = self.likeness(features)
        itself = cosines > ITSELF
        alone = ~((cosines > HIDDEN) & ~itself).any(1, keepdim=True)  # then the image itself has to do
        best, index = cosines.masked_fill(itself & ~alone, HIDDEN).topk(min(similar, cosines.shape[1]), 1)
        row = index.gather(1, (best > HIDDEN).float().multinomial(1))[:, 0]  # there may be fewer than *similar*
        return self._images(row)

    def _images(self, rows: Tensor) -> Tensor:
        return self.images[rows].float() / 255


def signature_of(features: list[Tensor]) -> Tensor:
    """Mean over positions of the deepest features, of length 1: (B, C)."""
    return F.normalize(features[-1].mean((2, 3)), dim=1)
