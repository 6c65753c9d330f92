"""Split-conformal p-values from held-out normal scores; numpy only, so that scoring needs nothing more.

While production normals are exchangeable with the calibration normals, P(p <= alpha) <= alpha for a normal image
(Vovk et al., Algorithmic Learning in a Random World, 2005). An image is anomalous exactly when p <= alpha, which is the
same as score > threshold.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def needed(alpha: float) -> int:
    """The fewest normals with which a p-value can reach *alpha*."""
    return math.ceil(1 / alpha - 1e-9) - 1


FLAT = 0.01  # a range below this share of the largest value is that of a flat product: rounding must not rule it


def span(values: np.ndarray) -> float:
    """What differences of *values* are measured against: their range, or FLAT of the largest where that is less."""
    return max(float(np.ptp(values)), FLAT * float(np.abs(values).max()), 1e-12)


def threshold(scores: np.ndarray, alpha: float, resolution: float = 0.0) -> float:
    """The largest score still called normal: *resolution* above the k-th smallest, k = n + 1 - floor(alpha (n + 1))."""
    n = len(scores)
    return float(np.sort(scores)[n - math.floor(alpha * (n + 1) + 1e-9)]) + resolution


def p_values(calibration: dict[str, Any], scores: np.ndarray) -> np.ndarray:
    """(1 + number of calibration scores >= s) / (n + 1) for each score s; higher = more normal.

    Scores closer than ``resolution`` count as ties: two runtimes differ by rounding, and the image that sets the
    threshold must get the same decision from both. Ties make p larger, so the bound on false alarms holds.
    """
    known = np.asarray(calibration["scores"], np.float64)  # sorted
    least = np.asarray(scores, np.float64) - calibration.get("resolution", 0.0)
    above = len(known) - np.searchsorted(known, least, side="left")
    return (1 + above) / (len(known) + 1)


def of_group(calibration: dict[str, Any], group: str | None) -> dict[str, Any]:
    """The table that decides for *group*: its own where calibration.json holds one, otherwise the overall one."""
    own = calibration.get("groups", {}).get(group, {})
    return {**calibration, **own} if "scores" in own else calibration


def judge(
    calibration: dict[str, Any], scores: np.ndarray, groups: Sequence[str | None]
) -> tuple[np.ndarray, list[str], np.ndarray]:
    """p-values, decisions and thresholds of *scores* (N,), each by the table of its group."""
    p, limits, decisions = np.empty(len(scores)), np.empty(len(scores)), np.empty(len(scores), object)
    for group in set(groups):
        at, known = np.array([g == group for g in groups]), of_group(calibration, group)
        p[at], decisions[at], limits[at] = p_values(known, scores[at]), decide(known, scores[at]), known["threshold"]
    return p, list(decisions), limits


def decide(calibration: dict[str, Any], scores: np.ndarray) -> list[str]:
    """``anomalous`` where p <= alpha, else ``normal``."""
    anomalous = p_values(calibration, scores) <= calibration["alpha"] + 1e-12
    return ["anomalous" if a else "normal" for a in anomalous]
