"""Another operating point of a calibrated model: from the scores that calibration.json keeps."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from components.calibration.calibrate import group_tables, summary
from components.calibration.settings import CalibrationSettings
from components.core.errors import CalibrationError, SettingsError
from components.decision.calibration import MALFORMED
from components.decision.conformal import Table, beyond, needed, p_values, smallest

log = logging.getLogger("loupe")
FEW = 20  # defects below which an estimated miss rate says little
LARGEST = 0.5  # alpha beyond which no choice by cost goes: more than half of the good pictures would be alarms


def moved(values: Mapping[str, Any], alpha: float) -> dict[str, Any]:
    """What calibration.json holds, *values*, at another *alpha*. Raises SettingsError, CalibrationError."""
    try:
        return _moved(values, alpha)
    except MALFORMED as error:
        what = f"calibration.json is none ({type(error).__name__}: {str(error)[:200]}); calibrate again"
        raise CalibrationError(what) from error


def _moved(values: Mapping[str, Any], alpha: float) -> dict[str, Any]:
    settings = CalibrationSettings(alpha, values["confidence"])
    scores = np.asarray(values["scores"], np.float64)
    if len(scores) < needed(alpha):
        raise CalibrationError(
            f"{len(scores)} normals are too few for a false-alarm rate of {alpha:g}; {needed(alpha)} are needed, and "
            f"the smallest rate that these allow is {smallest(len(scores)):g}"
        )
    new = {**values, **summary(scores, settings), **{key: values[key] for key in ("rule",) if key in values}}
    return new | {"groups": _regrouped(values, scores, settings)}


def _regrouped(values: Mapping[str, Any], scores: np.ndarray, settings: CalibrationSettings) -> dict[str, Any]:
    """The groups' own tables; files of older versions lack the scores of groups that had none, and these stay so."""
    known = values.get("groups", {})
    if len(known) == 1:
        return group_tables(dict.fromkeys(known, scores), settings)
    kept = {name: np.asarray(own.get("scores", own.get("held", ()))) for name, own in known.items()}
    lost = [name for name, own in known.items() if len(kept[name]) != own["n"]]
    for name in lost:
        log.warning("group %s: an older version did not keep its scores, the overall table goes on deciding", name)
    tables = group_tables({name: part for name, part in kept.items() if name not in lost}, settings, apart=True)
    return {name: known[name] if name in lost else tables[name] for name in known}


@dataclass(frozen=True)
class Costs:
    """What a missed defect and a false alarm cost, in one unit, and the share of defective pictures on the line."""

    miss: float
    alarm: float
    defect_rate: float

    def __post_init__(self) -> None:
        for name, value in (("--cost-miss", self.miss), ("--cost-alarm", self.alarm)):
            if not 0 < value < float("inf"):
                raise SettingsError(f"{name} is {value:g}; give a number above 0")
        if not 0 < self.defect_rate < 1:
            raise SettingsError(f"--defect-rate is {self.defect_rate:g}; give a share between 0 and 1, such as 0.01")


@dataclass(frozen=True)
class Defects:
    """Raw scores (N,) of defective pictures, by the very graph that decides, and the group of each or None."""

    scores: np.ndarray
    groups: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Estimate:
    """What an operating point is expected to cost per picture; *missed* of the known defects lie below it."""

    alpha: float
    cost: float
    missed: int
    misses: tuple[float, float]  # Clopper and Pearson's interval of the miss rate


def estimate(values: Mapping[str, Any], alpha: float, defects: Defects, costs: Costs) -> Estimate:
    """*alpha* of the normals are alarms, as calibrated; misses are the share of *defects* that are called normal."""
    from scipy.stats import beta

    n, many = values["n"], len(defects)
    missed = int((_p_values(values, alpha, defects) > alpha + 1e-12).sum())
    alarms = beyond(n, alpha) / (n + 1)
    cost = costs.defect_rate * costs.miss * missed / many + (1 - costs.defect_rate) * costs.alarm * alarms
    tails = (1 - values["confidence"]) / 2
    low = float(beta.ppf(tails, missed, many - missed + 1)) if missed else 0.0
    high = float(beta.ppf(1 - tails, missed + 1, many - missed)) if missed < many else 1.0
    return Estimate(alpha, cost, missed, (low, high))


def cheapest(values: Mapping[str, Any], defects: Defects, costs: Costs) -> Estimate:
    """Of all operating points that the normals allow, up to LARGEST, the least expected cost; of equal ones the
    fewest alarms. Raises CalibrationError where there is no defect to choose by.
    """
    if not len(defects):
        raise CalibrationError("there is no reviewed or labelled defect to choose by; give --alpha, or defects first")
    if len(defects) < FEW:
        log.warning("%d defects are few to estimate a miss rate by; %d or more say something", len(defects), FEW)
    n = values["n"]
    steps = range(1, max(1, int(LARGEST * (n + 1))) + 1)
    return min((estimate(values, k / (n + 1), defects, costs) for k in steps), key=lambda e: (e.cost, e.alpha))


def _p_values(values: Mapping[str, Any], alpha: float, defects: Defects) -> np.ndarray:
    """By the table that decides of each at *alpha*: the group's own where it has enough normals for that."""
    p = p_values(_table(values, alpha), defects.scores)
    several = len(values.get("groups", {})) > 1
    for name, own in values.get("groups", {}).items():
        scores = own.get("scores", own.get("held", ()))
        at = np.array([group == name for group in defects.groups], bool)
        if several and at.any() and len(scores) == own["n"] and own["n"] >= needed(alpha):
            p[at] = p_values(
                _table({"resolution": own.get("resolution", 0.0), "scores": scores}, alpha), defects.scores[at]
            )
    return p


def _table(values: Mapping[str, Any], alpha: float) -> Table:
    return Table(np.sort(np.asarray(values["scores"], np.float64)), alpha, 0.0, values.get("resolution", 0.0))
