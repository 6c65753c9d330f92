"""When the quick edge graph may answer alone: its limits, from calibrate normals (``decision.cascade``)."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from components.calibration.calibrate import RESOLUTION
from components.calibration.settings import CascadeSettings
from components.core.errors import BundleError, SettingsError
from components.core.settings import build, plain
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


def evidence(normals: Scored, made: Scored, full: np.ndarray, settings: CascadeSettings) -> dict[str, Any]:
    """What ``moved_exits`` needs: edge scores of normals by group, edge and *full* scores of synthetic anomalies."""
    return {
        "settings": plain(settings),
        "normals": {str(name): sorted(map(float, normals.of(name))) for name in sorted(set(normals.groups))},
        "synthetic": {
            "edge": list(map(float, made.scores)),
            "full": list(map(float, full)),
            "group": list(map(str, made.groups)),
        },
    }


def moved_exits(values: Mapping[str, Any], calibration: Calibration) -> dict[str, Any]:
    """What cascade.json holds, *values*, at the operating point of *calibration*.

    Raises BundleError for a file of an older version, SettingsError where alpha leaves the edge graph nothing to say.
    """
    if "evidence" not in values:
        raise BundleError(
            "cascade.json: an older version did not keep the scores that its limits come from; export the bundle again"
        )
    known, made = values["evidence"], values["evidence"]["synthetic"]
    settings = build(CascadeSettings, known["settings"], "cascade.json: evidence.settings")
    groups = np.array([name for name, part in known["normals"].items() for _ in part], object)
    normals = Scored(np.array([s for part in known["normals"].values() for s in part], np.float64), groups)
    decisions = calibration.decide(np.asarray(made["full"], np.float64), made["group"])[1]
    seen = np.array([decision == "anomalous" for decision in decisions], bool)
    found = Scored(np.asarray(made["edge"], np.float64)[seen], np.array(made["group"], object)[seen])
    return {**exits(normals, found, calibration, settings), "evidence": known}


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
