"""Two graphs under one false-alarm rate: when the quick edge graph's answer stands, and with which p-value.

Each graph has a conformal p-value of its own, from the same calibrate normals, and a share of alpha to spend: what is
reported is the p-value of the graph that answered, divided by its share (a weighted Bonferroni correction). Whatever
decides which graph answers, P(p <= t) <= t holds for a normal image, and it is anomalous when p <= alpha, as anywhere.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.core.artefacts import read_json
from components.core.errors import BundleError
from components.decision.calibration import MALFORMED
from components.decision.conformal import Decided, Table, called, p_values, threshold


@dataclass(frozen=True)
class Exit:
    """The edge graph's *table* for one group, or for all; *share* of alpha is its own to spend.

    It says normal at once up to *low*, and anomalous above *high*; None: never.
    """

    table: Table
    share: float
    low: float
    high: float | None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Exit":
        """From what cascade.json holds of all, or of one group."""
        high = values["high"]
        return cls(
            Table.of({**values, "threshold": math.inf if high is None else high}),
            float(values["share"]),
            float(values["low"]),
            None if high is None else float(high),
        )


@dataclass(frozen=True)
class Exits:
    """cascade.json: the ways out past the full graph."""

    overall: Exit
    own: Mapping[str, Exit]

    @classmethod
    def read(cls, path: Path) -> "Exits":
        """The record of a file cascade.json."""
        return cls.of(read_json(path))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Exits":
        """The record of what cascade.json holds. Raises BundleError where that is no way out."""
        try:
            own = {str(name): Exit.of({**values, **one}) for name, one in values.get("groups", {}).items()}
            return cls(Exit.of(values), own)
        except MALFORMED as error:
            what = f"cascade.json is none ({type(error).__name__}: {str(error)[:200]}); export the bundle again"
            raise BundleError(what) from error

    def exit_of(self, group: str | None) -> Exit:
        """That of *group* where it has one, otherwise that of all."""
        return self.own.get(group, self.overall) if group is not None else self.overall


def early(way: Exit, score: float) -> str | None:
    """The decision that the edge graph takes alone, None if none."""
    if score <= way.low:
        return "normal"
    return "anomalous" if way.high is not None and score > way.high else None


def edge_decision(way: Exit, score: float, decision: str) -> Decided:
    """What is reported where the edge graph has taken *decision*."""
    p = shared(float(p_values(way.table, np.array([score]))[0]), way.share)
    limit = way.low if decision == "normal" or way.high is None else way.high
    return Decided(p, decision, float(limit))


def full_decision(way: Exit, table: Table, score: float) -> Decided:
    """What is reported where the full graph had to answer: by its own *table*, with what was left to it of alpha."""
    left = 1 - way.share
    p = shared(float(p_values(table, np.array([score]))[0]), left)
    return Decided(p, called(p, table.alpha), threshold(table.scores, left * table.alpha, table.resolution))


def shared(p: float, share: float) -> float:
    """A p-value to be held against all of alpha by a graph that may spend *share* of it; 1 where it may spend none."""
    return min(1.0, p / share) if share else 1.0
