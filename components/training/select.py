"""How well a detector tells calibrate normals from synthetic anomalies: the only score that chooses anything."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from components.detectors.contract import Detector, Table
from components.training.data import CheckImages

BATCH = 16


class SyntheticAUROC:
    """Image AUROC of synthetic anomalies against calibrate normals; what the detector needs of them is read once."""

    def __init__(self, check: CheckImages) -> None:
        self.check = check
        self.table: Table | None = None

    def __call__(self, detector: Detector) -> float:
        return auroc(self.check.anomalous, self.scores(detector))

    def scores(self, detector: Detector) -> np.ndarray:
        """float64 (N,): of the calibrate normals and the anomalies."""
        self.table = self.table or detector.inputs(self.check.data)
        return scores_of(detector, self.table)


def auroc(anomalous: np.ndarray, scores: np.ndarray) -> float:
    """Of *scores* (N,) against *anomalous* (N,) bool; what is not finite counts as the most anomalous."""
    return float(roc_auc_score(anomalous, np.nan_to_num(scores, nan=np.inf, posinf=1e300)))


def scores_of(detector: Detector, table: Table) -> np.ndarray:
    """float64 (N,): the image scores of every row of *table*."""
    return torch.cat(list(_scores(detector, table))).double().numpy()


@torch.inference_mode()
def _scores(detector: Detector, table: Table) -> Iterator[Tensor]:
    device = next(detector.parameters()).device
    for start in range(0, len(table), BATCH):
        inputs = moved(table.take(range(start, min(start + BATCH, len(table)))), device)
        yield detector.score(inputs, (detector.size, detector.size)).image.cpu()


def moved(inputs: Any, device: torch.device) -> Any:
    """Tensors in nested lists and tuples, on *device*."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    return type(inputs)(moved(part, device) for part in inputs)
