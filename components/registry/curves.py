"""The history of a training as curves: numbers by name and step, as MLflow draws them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

MARK = "/"  # in the name of every curve and of no other figure
NOT_DRAWN = ("phase", "epoch")
Point = tuple[str, float, int]  # name, value, step


def points(history: Sequence[Mapping[str, Any]]) -> Iterator[Point]:
    """All points of a history; the step is the place of a record, over all phases."""
    for step, record in enumerate(history):
        yield from points_of(step, record)


def points_of(step: int, record: Mapping[str, Any]) -> Iterator[Point]:
    """The points of one record: its finite numbers."""
    for name, value in record.items():
        drawn = isinstance(value, int | float) and not isinstance(value, bool) and name not in NOT_DRAWN
        if drawn and math.isfinite(value):
            yield f"{record.get('phase', 'training')}{MARK}{name}", float(value), step
