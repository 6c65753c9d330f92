"""How many of the candidates are probably defective, without a label.

Every candidate is scored by a memory bank of the other candidates (three folds), twice: the second time the banks leave
out the highest 30 % of the first, so that defects do not vouch for each other. The pool's lower half then says how
normals of the new kind scatter; what lies far above it is trimmed. The estimate counts only what is visible to the
detector and is therefore a lower bound.
"""

from pathlib import Path

import numpy as np
import torch

from components.backbones.features import Features, FeatureStore
from components.core.progress import progress
from components.detectors.catalogue import create, settings_for
from components.pictures.decoding import DEFAULT, Decoding
from components.retraining.settings import RetrainSettings
from components.training.data import FileImages, by_picture

FOLDS = 3
TRUSTED = 0.7  # share of the first pass that the second pass learns from
DECILE = 1.2816  # standard normal distance from the lowest tenth to the median
BATCH = 16


def cross_scores(images: FileImages, store: FeatureStore, settings: RetrainSettings, seed: int) -> np.ndarray:
    """Raw scores (N,) of each image under banks of the other folds."""
    torch.manual_seed(seed)
    method = settings_for("patchcore", "cpu", {"bank_size": settings.contamination_bank})
    table = store.features(create("patchcore", method).backbone, images)  # type: ignore[arg-type]
    of = np.array([piece.picture for piece in images.pieces])
    first = by_picture(images, _pass(table, method, of, np.ones(len(table), bool)))
    return by_picture(images, _pass(table, method, of, (first <= np.quantile(first, TRUSTED))[of]))


def _pass(table: Features, method: object, of: np.ndarray, trusted: np.ndarray) -> np.ndarray:
    """Scores of the rows of *table*, which are *of* these pictures: the pieces of one are in one fold."""
    fold, scores = of % FOLDS, np.zeros(len(table))
    for k in progress(range(FOLDS), "scoring the candidates by each other"):
        scores[fold == k] = _scores(table, method, np.where((fold != k) & trusted)[0], np.where(fold == k)[0])
    return scores


@torch.inference_mode()
def _scores(table: Features, method: object, fit: np.ndarray, asked: np.ndarray) -> np.ndarray:
    detector = create("patchcore", method)
    (phase,) = detector.phases(_Given(table))  # type: ignore[arg-type]
    for rows in np.array_split(fit, max(1, len(fit) // BATCH)):
        phase.update(table.take(list(rows)))  # type: ignore[union-attr]
    phase.finish()  # type: ignore[union-attr]
    size = (detector.size, detector.size)
    parts = np.array_split(asked, max(1, len(asked) // BATCH))
    return torch.cat([detector.score(table.take(list(rows)), size).image for rows in parts]).numpy()  # type: ignore[operator]


class _Given:
    """Training data whose features are at hand already."""

    def __init__(self, table: Features) -> None:
        self.table = table

    def features(self, _: object) -> Features:
        return self.table


def deviations(scores: np.ndarray) -> np.ndarray:
    """Distance above the median in standard deviations, as the lower half of the pool shows them."""
    low, middle = np.quantile(scores, [0.1, 0.5])
    return (scores - middle) / max((middle - low) / DECILE, 1e-12)


def estimate(beyond: np.ndarray, clean_tail: float) -> float:
    """The share of visible defects: what lies beyond, less what a clean pool shows there."""
    return max(0.0, (float(beyond.mean()) - clean_tail) / (1 - clean_tail))


def images_of(paths: list[Path], hashes: list[str], rules: Decoding = DEFAULT) -> FileImages:
    return FileImages(tuple(paths), tuple(hashes), rules)
