"""When the quick edge graph may answer alone: its limits, from calibrate normals (``decision.cascade``)."""

import math
from typing import Any, NamedTuple

import numpy as np

from components.calibration.calibrate import RESOLUTION
from components.calibration.settings import CascadeSettings
from components.core.errors import SettingsError
from components.decision.calibration import Calibration
from components.decision.conformal import needed, span, threshold


class Scored(NamedTuple):
    """Edge scores (N,) of images and their groups."""

    scores: np.ndarray
    groups: np.ndarray

    def of(self, group: str) -> np.ndarray:
        """The scores of one group."""
        return self.scores[self.groups == group]


def exits(normals: Scored, made: Scored, calibration: Calibration, settings: CascadeSettings) -> dict[str, Any]:
    """What cascade.json holds, from the calibrate normals and the synthetic anomalies that the full graph finds.

    A group has an edge table of its own exactly where *calibration*, the full graph's, has one for it.
    """
    alpha = calibration.alpha
    require_normal_above(alpha, settings)
    return {
        "rule": "normal at once when the edge score <= low, anomalous at once when > high, else the full graph; "
        "p = p of the graph that answers / its share of alpha",
        "alpha": alpha,
        "normal": settings.normal,
        **_table(normals.scores, made.scores, alpha, settings),
        "groups": {name: _table(normals.of(name), made.of(name), alpha, settings) for name in calibration.own},
    }


def require_normal_above(alpha: float, settings: CascadeSettings) -> None:
    """Raises SettingsError where a picture could be normal at once and anomalous by *alpha*."""
    if alpha >= settings.normal:
        raise SettingsError(f"export.cascade: normal is {settings.normal}; give more than alpha, which is {alpha}")


def _table(scores: np.ndarray, made: np.ndarray, alpha: float, settings: CascadeSettings) -> dict[str, Any]:
    n, resolution = len(scores), RESOLUTION * span(scores)
    # With too few normals to reach its share, the edge graph says normal only and the full graph keeps all of alpha.
    share = settings.share if settings.share and n >= needed(alpha * settings.share) else 0.0
    beyond = math.ceil(settings.normal * (n + 1) - 1e-9) - 1  # so many normals at or above a score: p is high enough
    low = min(float(np.sort(scores)[n - beyond]), _below(made, settings.missed) - 2 * resolution) + resolution
    return {
        "n": n,
        "share": share,
        "low": low,
        "leave": {"normals": float((scores <= low).mean()), "found_synthetic": _share(made <= low), "of": len(made)},
        "high": threshold(scores, alpha * share, resolution) if share else None,
        "resolution": resolution,
        "scores": [float(s) for s in np.sort(scores)],
    }


def _below(made: np.ndarray, missed: float) -> float:
    """The score that more than the share *missed* of *made* does not exceed; infinite where there is none."""
    kept = math.floor(missed * len(made) + 1e-9)
    return float(np.sort(made)[kept]) if kept < len(made) else math.inf


def _share(which: np.ndarray) -> float | None:
    return float(which.mean()) if len(which) else None
