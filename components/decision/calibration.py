"""calibration.json as a record: the operating point of one model, from normal images alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.core.artefacts import read_json
from components.core.errors import CalibrationError
from components.decision.conformal import Table, called, p_values

# What a record of other shapes raises where it is taken apart.
MALFORMED = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError)
DEVIATION = 1.4826  # standard deviations in a median absolute deviation of a normal distribution


def middle_and_spread(scores: np.ndarray) -> tuple[float, float]:
    """Median of *scores*, and their median absolute deviation as a standard deviation: one odd picture moves neither.

    Of more than half equal values that is none, and the standard deviation is taken; 0 where all are equal.
    """
    middle = float(np.median(scores))
    return middle, DEVIATION * float(np.median(np.abs(scores - middle))) or float(scores.std())


def standardised(scores: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """*scores* on the scale of *normals*: less their middle, by their spread."""
    middle, spread = middle_and_spread(normals)
    return (scores - middle) / (spread or 1.0)


@dataclass(frozen=True)
class Group:
    """One group of the calibrate normals; *table* where it decides by its own, *threshold* None where it cannot."""

    n: int
    threshold: float | None
    table: Table | None = None


class Alike(NamedTuple):
    """What pictures lie in that are alike, as ``clips`` or ``groups``, and in how many of them calibrate normals do."""

    of: str
    n: int

    def __str__(self) -> str:
        return f"{self.n} {self.of.removesuffix('s') if self.n == 1 else self.of}"


@dataclass(frozen=True)
class Calibration:
    """*interval* holds the true false-alarm rate with *confidence*; *scale* is that of heat maps, by quantile.

    *model* is the hash of the model whose scores these are; None in files of older versions. *folds* 0: they are of
    pictures that the model has not seen; K: of K models, each without its part of the pictures. *alike* None: each
    picture stands for itself.
    """

    table: Table
    n: int
    interval: tuple[float, float]
    confidence: float
    groups: Mapping[str, Group]
    scale: Mapping[str, float]
    model: str | None = None
    rule: str = ""
    folds: int = 0
    alike: Alike | None = None

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """The record of a file calibration.json. Raises CalibrationError where that says too little."""
        try:
            return cls.of(read_json(path))
        except CalibrationError as error:
            raise CalibrationError(f"{path}: {error}") from error

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Calibration":
        """The record of what calibration.json holds. Raises CalibrationError where nothing can be decided by it."""
        try:
            return cls._of(values)
        except KeyError as error:
            raise CalibrationError(f"says nothing of {error}; calibrate again") from error
        except MALFORMED as error:
            what = f"calibration.json is none ({type(error).__name__}: {str(error)[:200]}); calibrate again"
            raise CalibrationError(what) from error

    @classmethod
    def _of(cls, values: Mapping[str, Any]) -> "Calibration":
        _require_usable(values)
        groups = {str(name): _group(values, own) for name, own in values.get("groups", {}).items()}
        low, high = values["false_alarm_interval"]
        model, alike = values.get("model"), values.get("alike")
        return cls(
            Table.of(values),
            int(values["n"]),
            (float(low), float(high)),
            float(values["confidence"]),
            groups,
            {str(name): float(value) for name, value in values.get("map", {}).items()},
            None if model is None else str(model),
            str(values.get("rule", "")),
            int(values.get("folds", 0)),
            Alike(str(alike["of"]), int(alike["n"])) if alike else None,
        )

    @property
    def alpha(self) -> float:
        return self.table.alpha

    @property
    def nominal(self) -> str:
        """Why *interval* is that of another case and too narrow, in a few words; "" where it holds."""
        folds = "calibrated by folds" if self.folds else ""
        alike = f"pictures of {self.alike}, alike within each" if self.alike else ""
        return "; ".join(why for why in (folds, alike) if why)

    @property
    def threshold(self) -> float:
        return self.table.threshold

    @property
    def own(self) -> dict[str, Group]:
        """The groups that have a table of their own."""
        return {name: group for name, group in self.groups.items() if group.table}

    def table_of(self, group: str | None) -> Table:
        """The table that decides for *group*: its own where it has one, otherwise the overall one."""
        known = self.groups.get(group) if group is not None else None
        return known.table if known and known.table else self.table

    def decide(self, scores: np.ndarray, groups: Sequence[str | None]) -> tuple[np.ndarray, list[str], np.ndarray]:
        """p-values, decisions and thresholds of *scores* (N,), each by the table of its group."""
        p, limits, decisions = np.empty(len(scores)), np.empty(len(scores)), np.empty(len(scores), object)
        for group in set(groups):
            at, table = np.array([g == group for g in groups]), self.table_of(group)
            p[at], limits[at] = p_values(table, scores[at]), table.threshold
            decisions[at] = [called(one, table.alpha) for one in p[at]]
        return p, list(decisions), limits


def _require_usable(values: Mapping[str, Any]) -> None:
    """JSON takes NaN, and people edit files: by such a record every picture would be normal."""
    alpha, limit = float(values["alpha"]), float(values["threshold"])
    known = np.asarray(values["scores"], np.float64)
    if not (0 < alpha < 1 and np.isfinite(limit) and known.size and np.isfinite(known).all()):
        what = f"alpha {alpha}, threshold {limit} and {known.size} scores"
        raise CalibrationError(f"calibration.json holds {what}, by which nothing can be decided; calibrate again")


def _group(overall: Mapping[str, Any], own: Mapping[str, Any]) -> Group:
    table = Table.of({**overall, **own}) if "scores" in own else None
    limit = own["threshold"]
    return Group(int(own["n"]), None if limit is None else float(limit), table)
