"""How well a detector tells calibrate normals from synthetic anomalies: the only score that chooses anything."""

from collections.abc import Iterator

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from components.detectors.contract import Detector, FeatureDetector
from components.training.data import CheckImages

BATCH = 16


def synthetic_auroc(detector: Detector, check: CheckImages) -> float:
    """Image AUROC of synthetic anomalies against calibrate normals."""
    scores = torch.cat(list(_scores(detector, check))).double().numpy()
    return float(roc_auc_score(check.anomalous, np.nan_to_num(scores, nan=np.inf, posinf=1e300)))


@torch.inference_mode()
def _scores(detector: Detector, check: CheckImages) -> Iterator[Tensor]:
    size, device = detector.size, next(detector.parameters()).device
    batches = [range(i, min(i + BATCH, len(check.images))) for i in range(0, len(check.images), BATCH)]
    if isinstance(detector, FeatureDetector):
        table = check.store.features(detector.backbone, check.images)
        for rows in batches:
            features = [tap.to(device) for tap in table.take(list(rows))]
            yield detector.score(features, (size, size)).image.cpu()
    else:
        for rows in batches:
            yield detector(check.images.pixels(rows, size).to(device)).image.cpu()
