"""Several pictures of one part are one decision, at the same alpha: p-values of views become one of the part.

The part looks odd when the *vote*-th smallest p-value of its k views is small; 1: the smallest, the worst view. Taken
alone that would call good parts anomalous up to k times as often as alpha, so it is corrected, in one of two ways:

- by a bound that holds however the views hang together: P(the m-th smallest of k <= x) <= k x / m (Rueger 1978; m = 1
  is Bonferroni's), so p = min(1, p_(m) k / m);
- by good parts of which all views were scored: split conformal on p_(m) itself, exact for exchangeable parts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.core.errors import CalibrationError
from components.decision.conformal import beyond, called, smallest


@dataclass(frozen=True)
class Rule:
    """How *views* p-values become one, at *alpha*; *good* is the statistic of good parts, sorted, or empty."""

    views: int
    vote: int
    alpha: float
    good: tuple[float, ...] = ()

    @classmethod
    def of(cls, views: int, vote: int, alpha: float, calibration: Path | None = None) -> "Rule":
        """Raises CalibrationError where *calibration*, a JSON list of a list of p-values a part, does not fit."""
        if calibration is None:
            return cls(views, vote, alpha)
        try:
            parts = np.asarray(json.loads(calibration.read_text()), np.float64)
        except (OSError, ValueError, TypeError) as error:
            raise CalibrationError(f"{calibration}: holds no lists of p-values ({error}); write it again") from None
        if parts.ndim != 2 or parts.shape[1] != views or not ((parts > 0) & (parts <= 1)).all():
            raise CalibrationError(f"{calibration}: give for each good part {views} p-values above 0 and up to 1")
        beyond(len(parts), alpha)  # too few parts are told
        good = np.sort(np.sort(parts, axis=1)[:, vote - 1])
        return cls(views, vote, alpha, tuple(map(float, good)))

    def p_value(self, values: Sequence[float]) -> float:
        """The part's p-value of its views' *values*, as many as there are views."""
        if len(values) != self.views:
            raise ValueError(f"{len(values)} p-values for {self.views} views")
        worst = sorted(values)[self.vote - 1]
        if self.good:  # ties count against calling it anomalous, so that alpha holds
            return float(1 + np.searchsorted(self.good, worst + 1e-12, side="right")) / (len(self.good) + 1)
        return min(1.0, worst * self.views / self.vote)

    def decide(self, values: Mapping[str, float]) -> tuple[float, str]:
        """p-value and decision of a part by its views' p-values."""
        p = self.p_value(list(values.values()))
        return p, called(p, self.alpha)

    def require_reachable(self, normals: int) -> None:
        """Raises CalibrationError where views calibrated on *normals* could never call a part anomalous."""
        least = 1 / (normals + 1)
        if self.p_value([least] * self.views) > self.alpha + 1e-12:
            needed = int(np.ceil(self.views / (self.vote * self.alpha) - 1e-9)) - 1
            raise CalibrationError(
                f"{self.views} views with vote {self.vote} need {needed} calibrate normals at alpha {self.alpha:g}, "
                f"and there are {normals} (a single view reaches {smallest(normals):g}): add good images, raise alpha "
                "or vote"
            )
