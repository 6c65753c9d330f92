"""Split-conformal p-values from held-out normal scores; numpy only, so that scoring needs nothing more.

While production normals are exchangeable with the calibration normals, P(p <= alpha) <= alpha for a normal image
(Vovk et al., Algorithmic Learning in a Random World, 2005). An image is anomalous exactly when p <= alpha, which is the
same as score > threshold.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from components.core.errors import CalibrationError


def needed(alpha: float) -> int:
    """The fewest normals with which a p-value can reach *alpha*."""
    return math.ceil(1 / alpha - 1e-9) - 1


def smallest(n: int) -> float:
    """The smallest alpha that *n* normals can give, rounded up: what is said is accepted when it is typed."""
    return math.ceil(1e5 / (n + 1)) / 1e5


def beyond(n: int, alpha: float) -> int:
    """How many of *n* normals, and the new one itself, may lie at or above a score that is called anomalous.

    Raises CalibrationError where *n* is too small for *alpha*, or *alpha* no rate.
    """
    allowed = math.floor(alpha * (n + 1) + 1e-9) if 0 < alpha < 1 else 0
    if not 1 <= allowed <= n:
        most = math.floor(1e5 * n / (n + 1)) / 1e5
        raise CalibrationError(f"alpha is {alpha:g} with {n} normals; give one from {smallest(n):g} to {most:g}")
    return allowed


FLAT = 0.01  # a range below this share of the largest value is that of a flat product: rounding must not rule it


def span(values: np.ndarray) -> float:
    """What differences of *values* are measured against: their range, or FLAT of the largest where that is less."""
    return max(float(np.ptp(values)), FLAT * float(np.abs(values).max()), 1e-12)


def threshold(scores: np.ndarray, alpha: float, resolution: float = 0.0) -> float:
    """The largest score still called normal: *resolution* above the k-th smallest, k = n + 1 - floor(alpha (n + 1)).

    Raises CalibrationError as ``beyond``.
    """
    n = len(scores)
    return float(np.sort(scores)[n - beyond(n, alpha)]) + resolution


@dataclass(frozen=True)
class Table:
    """What decides for pictures of one kind: the sorted *scores* (n,) of calibrate normals and the limit from them.

    Scores closer than *resolution* count as ties: two runtimes differ by rounding, and the image that sets the
    threshold must get the same decision from both. Ties make p larger, so the bound on false alarms holds.
    """

    scores: np.ndarray
    alpha: float
    threshold: float
    resolution: float = 0.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Table":
        """From what calibration.json holds of all, or of one group. Raises ValueError for no sorted row of scores."""
        scores = np.asarray(values["scores"], np.float64)
        if scores.ndim != 1 or not len(scores) or not (np.diff(scores) >= 0).all():
            raise ValueError("its scores are no sorted row of numbers")
        return cls(scores, float(values["alpha"]), float(values["threshold"]), float(values.get("resolution", 0.0)))


class Decided(NamedTuple):
    """What is decided of one picture, and the threshold that it stands on."""

    p_value: float
    decision: str
    threshold: float


def p_values(table: Table, scores: np.ndarray) -> np.ndarray:
    """(1 + number of calibration scores >= s) / (n + 1) for each score s; higher = more normal."""
    least = np.asarray(scores, np.float64) - table.resolution
    above = len(table.scores) - np.searchsorted(table.scores, least, side="left")
    return (1 + above) / (len(table.scores) + 1)


def decide_one(table: Table, score: float) -> Decided:
    """What is decided of one picture."""
    p = float(p_values(table, np.array([score]))[0])
    return Decided(p, called(p, table.alpha), table.threshold)


def called(p: float, alpha: float) -> str:
    """The decision that a p-value stands for."""
    return "anomalous" if p <= alpha + 1e-12 else "normal"
