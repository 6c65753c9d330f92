"""How well a detector tells calibrate normals from synthetic anomalies: the only score that chooses anything."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from components.core.artefacts import atomic_dir
from components.core.records import phase_of
from components.detectors.contract import Detector, Table
from components.training.data import CheckImages, by_picture
from components.training.model import save_model
from components.training.ranks import ALONE, Ranks

BATCH = 16
LARGE = 1e300


class SyntheticAUROC:
    """Image AUROC of synthetic anomalies against calibrate normals; what the detector needs of them is read once."""

    def __init__(self, check: CheckImages, ranks: Ranks = ALONE) -> None:
        self.check, self.ranks = check, ranks
        self.table: Table | None = None

    def __call__(self, detector: Detector) -> float:
        return auroc(self.check.anomalous, self.scores(detector))

    def scores(self, detector: Detector) -> np.ndarray:
        """float64 (N,): of the calibrate normals and the anomalies."""
        self.table = self.table or detector.inputs(self.check.data)
        return by_picture(self.check.data.images, scores_of(detector, self.table, self.ranks))


def auroc(anomalous: np.ndarray, scores: np.ndarray) -> float:
    """Of *scores* (N,) against *anomalous* (N,) bool; what is not finite counts as the most anomalous."""
    return float(roc_auc_score(anomalous, finite(scores)))


def against(good: np.ndarray, made: np.ndarray) -> float:
    """AUROC of the scores *made* of anomalies against those of *good* pictures."""
    return auroc(np.repeat([False, True], [len(good), len(made)]), np.concatenate([good, made]))


def finite(scores: np.ndarray) -> np.ndarray:
    """*scores* as float64, large numbers in place of those that are none: no number is the most anomalous."""
    return np.nan_to_num(scores.astype(np.float64), nan=LARGE, posinf=LARGE, neginf=-LARGE)


def scores_of(detector: Detector, table: Table, ranks: Ranks = ALONE) -> np.ndarray:
    """float64 (N,): the image scores of every row of *table*, of which each process scores its share of batches."""
    starts = range(0, len(table), BATCH)
    found = ranks.all(list(_scores(detector, table, starts[ranks.rank :: ranks.count])))
    return torch.cat([found[i % ranks.count][i // ranks.count] for i in range(len(starts))]).double().numpy()


class FoldsAUROC:
    """For a training on all normals: what the same training was worth, at the same point, on folds it had not seen.

    Mean over the folds, from the *histories* of their trainings. Normals that are learned from cannot choose: every
    epoch brings them closer. ``loop``, the training that asks, tells the point, also after a kill.
    """

    def __init__(self, histories: Sequence[Sequence[Mapping[str, Any]]]) -> None:
        self.checks = [check for records in zip(*histories, strict=False) for check in _check(records)]
        self.loop: Any = None

    def __call__(self, _: Detector) -> float:
        before, after = self.checks[min(_judged(self.loop.history), len(self.checks) - 1)]
        return before if before is not None and self.loop.best is None else after


class KeptChecks:
    """``SyntheticAUROC`` that also leaves the model of each check below *folder*, by number: see ``common_check``.

    What a fold's few normals would choose by themselves would suit them, and they calibrate.
    """

    def __init__(self, select: Callable[[Detector], float], folder: Path, writes: bool = True) -> None:
        self.select, self.folder, self.writes = select, folder, writes
        self.loop: Any = None

    def __call__(self, detector: Detector) -> float:
        if self.writes:
            with atomic_dir(self.folder / str(_judged(self.loop.history))) as scratch:
                save_model(detector, scratch)
        return self.select(detector)


def common_check(histories: Sequence[Sequence[Mapping[str, Any]]]) -> int | None:
    """The check that is best on average over the folds, the later of equal ones: what ``FoldsAUROC`` makes a loop keep.

    None where the phase that a training ends with chooses nothing.
    """
    last = phase_of(histories[0][-1])
    judged = [records for records in zip(*histories, strict=False) if _check(records)]
    own = [i for i, records in enumerate(judged) if phase_of(records[0]) == last and "loss" in records[0]]
    if len(own) < 2:
        return None
    return max(own, key=lambda i: (_check(judged[i])[0][1], i))


def _judged(history: Sequence[Mapping[str, Any]]) -> int:
    return len([record for record in history if "synthetic_auroc" in record])


def _check(records: Sequence[Mapping[str, Any]]) -> list[tuple[float | None, float]]:
    """The mean of one point: of an optional phase before it and with it, and most folds say whether it stays."""
    if any("synthetic_auroc" not in record for record in records):
        return []
    after = float(np.mean([record["synthetic_auroc"] for record in records]))
    if any("before" not in record for record in records):
        return [(None, after)]
    before = float(np.mean([record["before"] for record in records]))
    stays = np.mean([record["kept"] for record in records]) >= 0.5
    return [(before, max(before, after) if stays else before - 1e-9)]


@torch.inference_mode()
def _scores(detector: Detector, table: Table, starts: Sequence[int]) -> Iterator[Tensor]:
    device = next(detector.parameters()).device
    for start in starts:
        inputs = moved(table.take(range(start, min(start + BATCH, len(table)))), device)
        yield detector.score(inputs, (detector.size, detector.size)).image.cpu()


def moved(inputs: Any, device: torch.device) -> Any:
    """Tensors in nested lists and tuples, on *device*."""
    if isinstance(inputs, Tensor):
        return inputs.to(device)
    return type(inputs)(moved(part, device) for part in inputs)
