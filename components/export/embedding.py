"""Sixteen numbers that say what an image looks like to the detector, for the drift monitor.

Principal components of the fit normals' descriptors alone would be blind to what lies outside their span, which is
where a new product lies; so the last number is the length of what the components leave.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from components.detectors.contract import Detector, Scores, answer
from components.training.descriptors import descriptor

SIZE = 16


def described(detector: Detector, images: Tensor, early: bool = False) -> tuple[Scores, Tensor]:
    """Scores, or the early answer, and descriptor (B, D) with the backbone run once."""
    inputs = detector.prepared(images)
    return answer(detector, inputs, (images.shape[-2], images.shape[-1]), early), descriptor(inputs)


class Described(nn.Module):
    """A detector whose forward also returns the embedding (B, SIZE); *descriptors* (N, D) are of fit normals.

    With *early* it is the detector's early answer that is returned (``contract.Early``).
    """

    centre: Tensor
    plain: Tensor
    directions: Tensor
    scale: Tensor

    def __init__(self, detector: Detector, descriptors: Tensor, early: bool = False) -> None:
        super().__init__()
        self.detector, self.early = detector, early
        mean = descriptors.mean(0)
        spread, directions = _principal(descriptors - mean, SIZE - 1)
        left = (descriptors - mean) - (descriptors - mean) @ directions @ directions.T
        self.register_buffer("centre", mean)
        self.register_buffer("directions", directions / spread)
        self.register_buffer("plain", directions)
        self.register_buffer("scale", left.norm(dim=1).mean().clamp_min(1e-6))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        scores, found = described(self.detector, images, self.early)
        offset = found - self.centre
        left = offset - (offset @ self.plain) @ self.plain.T
        length = left.square().sum(1, keepdim=True).sqrt() / self.scale
        known = offset @ self.directions
        return scores.image, scores.map, torch.cat([F.pad(known, (0, SIZE - 1 - known.shape[1])), length], 1)


def _principal(centred: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Standard deviations (k,) and directions (D, k) of the largest components, signs fixed by the largest entry."""
    _, values, rows = torch.linalg.svd(centred.double(), full_matrices=False)
    keep = min(count, int((values > 1e-6 * values[0].clamp_min(1e-12)).sum()))
    directions = rows[:keep].T
    signs = directions.gather(0, directions.abs().argmax(0)[None]).sign()
    spread = values[:keep] / max(1, len(centred) - 1) ** 0.5
    return spread.float(), (directions * signs).float()
