"""Two graphs under one false-alarm rate: when the quick edge graph's answer stands, and with which p-value.

Each graph has a conformal p-value of its own, from the same calibrate normals, and a share of alpha to spend: what is
reported is the p-value of the graph that answered, divided by its share (a weighted Bonferroni correction). Whatever
decides which graph answers, P(p <= t) <= t holds for a normal image, and it is anomalous when p <= alpha, as anywhere.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from components.calibration.component import RESOLUTION
from components.calibration.conformal import needed, p_values, span, threshold
from components.errors import SettingsError


@dataclass(frozen=True)
class CascadeSettings:
    """*normal* is the edge graph's p-value from which an image is normal at once: 0.5 lets half of the normals out.

    *share* of alpha is the edge graph's to call an image anomalous at once; 0: it only ever says normal. Of the
    synthetic anomalies that the full graph finds at most the share *missed* may leave as normal; 1: any number.
    """

    normal: float = 0.5
    share: float = 0.2
    missed: float = 0.05


class Scored(NamedTuple):
    """Edge scores (N,) of images and their groups."""

    scores: np.ndarray
    groups: np.ndarray

    def of(self, group: str) -> np.ndarray:
        """The scores of one group."""
        return self.scores[self.groups == group]


def exits(normals: Scored, made: Scored, calibration: dict[str, Any], settings: CascadeSettings) -> dict[str, Any]:
    """What cascade.json holds, from the calibrate normals and the synthetic anomalies that the full graph finds.

    A group has an edge table of its own exactly where *calibration*, the full graph's, has one for it.
    """
    alpha = calibration["alpha"]
    if not (alpha < settings.normal <= 1 and 0 <= settings.share <= 0.5 and 0 <= settings.missed <= 1):
        raise SettingsError(
            f"export.cascade: normal is {settings.normal}, share {settings.share}, missed {settings.missed}; give "
            f"normal in ({alpha}, 1], share in [0, 0.5] and missed in [0, 1]"
        )
    own = [name for name, table in calibration.get("groups", {}).items() if "scores" in table]
    return {
        "rule": "normal at once when the edge score <= low, anomalous at once when > high, else the full graph; "
        "p = p of the graph that answers / its share of alpha",
        "alpha": alpha,
        "normal": settings.normal,
        **_table(normals.scores, made.scores, alpha, settings),
        "groups": {name: _table(normals.of(name), made.of(name), alpha, settings) for name in own},
    }


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


def early(table: dict[str, Any], score: float) -> str | None:
    """The decision that the edge graph takes alone by *table* (the group's: ``conformal.of_group``), None if none."""
    if score <= table["low"]:
        return "normal"
    return "anomalous" if table["high"] is not None and score > table["high"] else None


def edge_verdict(table: dict[str, Any], score: float, decision: str) -> tuple[float, str, float]:
    """p-value, decision and the threshold it stands on, where the edge graph has decided."""
    p = shared(float(p_values(table, np.array([score]))[0]), table["share"])
    return p, decision, float(table["low"] if decision == "normal" else table["high"])


def full_verdict(table: dict[str, Any], known: dict[str, Any], score: float) -> tuple[float, str, float]:
    """The same where the full graph had to answer, by its own table *known* and what the edge graph left of alpha."""
    left = 1 - table["share"]
    p = shared(float(p_values(known, np.array([score]))[0]), left)
    limit = threshold(np.asarray(known["scores"]), left * known["alpha"], known.get("resolution", 0.0))
    return p, "anomalous" if p <= known["alpha"] + 1e-12 else "normal", limit


def shared(p: float, share: float) -> float:
    """A p-value to be held against all of alpha by a graph that may spend *share* of it; 1 where it may spend none."""
    return min(1.0, p / share) if share else 1.0
