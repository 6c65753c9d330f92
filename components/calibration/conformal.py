"""Split-conformal p-values from held-out normal scores; numpy only, so that scoring needs nothing more.

While production normals are exchangeable with the calibration normals, P(p <= alpha) <= alpha for a normal image
(Vovk et al., Algorithmic Learning in a Random World, 2005). An image is anomalous exactly when p <= alpha, which is the
same as score > threshold.
"""

import math
from typing import Any

import numpy as np


def needed(alpha: float) -> int:
    """The fewest normals with which a p-value can reach *alpha*."""
    return math.ceil(1 / alpha - 1e-9) - 1


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


def decide(calibration: dict[str, Any], scores: np.ndarray) -> list[str]:
    """``anomalous`` where p <= alpha, else ``normal``."""
    anomalous = p_values(calibration, scores) <= calibration["alpha"] + 1e-12
    return ["anomalous" if a else "normal" for a in anomalous]
