"""How far windows of this size stray from the reference when nothing has drifted.

A fixed limit on an effect size calls almost every small window drifted. Here the limit comes from resampling: both the
reference and the window are drawn anew from the reference, rows whole, so that the correlation of columns and the
reference's own finite size are in it (the bootstrap under the null hypothesis, Efron and Tibshirani, 1993, chapter 16).
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from components.core.errors import MonitorError
from components.monitoring.settings import MonitorSettings

LEAST_ROWS = 5
PER_COLUMN = 0.95  # the quantile that puts all columns on one scale before their largest is looked at


def distances(reference: np.ndarray, window: np.ndarray) -> np.ndarray:
    """Wasserstein distance per column over the reference's deviation; (m, C), (n, C) -> (C,).

    Evidently's ``wasserstein``; a test holds the two together.
    """
    norm = np.maximum(reference.std(0), 0.001)
    points = np.sort(np.concatenate([reference, window]), axis=0)
    gaps, ordered = np.diff(points, axis=0), points[:-1]
    share = [_shares(np.sort(side, axis=0), ordered) for side in (reference, window)]
    return (np.abs(share[0] - share[1]) * gaps).sum(0) / norm


def _shares(ordered: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Per column, the share of values that are at most each point."""
    columns = range(ordered.shape[1])
    counts = [np.searchsorted(ordered[:, c], points[:, c], side="right") for c in columns]
    return np.stack(counts, 1) / len(ordered)


@dataclass(frozen=True)
class Bounds:
    """*limits* per column: beyond one of them a window is flagged."""

    limits: dict[str, float]
    n: int


def bounds(reference: pd.DataFrame, n: int, settings: MonitorSettings) -> Bounds:
    """The limits for windows of *n* rows, such that one window in 1 / false_alarm is flagged by chance.

    Raises MonitorError when the reference is too small to be resampled.
    """
    if len(reference) < LEAST_ROWS:
        raise MonitorError(
            f"the reference has {len(reference)} rows and {LEAST_ROWS} are the least; calibrate on more normals"
        )
    rng = np.random.default_rng([settings.seed, n])
    rows, size = reference.to_numpy(), len(reference)
    drawn = np.array(
        [
            distances(rows[rng.integers(0, size, size)], rows[rng.integers(0, size, n)])
            for _ in range(settings.resamples)
        ]
    )
    scale = np.maximum(np.quantile(drawn, PER_COLUMN, axis=0), 1e-9)
    worst = np.quantile((drawn / scale).max(1), 1 - settings.false_alarm)
    limits = np.maximum(scale * worst, settings.min_effect)
    return Bounds(dict(zip(reference.columns, map(float, limits), strict=True)), n)
