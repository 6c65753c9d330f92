"""From drifted columns to keep, watch or retrain: k of m windows, then a cooldown. Pure; the time is given."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from components.monitoring.settings import MonitorSettings

Action = Literal["keep", "watch", "retrain"]


@dataclass(frozen=True)
class Verdict:
    """What one window says; stored once, never edited."""

    action: Action
    id: str
    source: str
    model: str
    model_version: str
    number: int
    flagged: bool
    reasons: tuple[str, ...]
    window: dict[str, Any]  # n, first and last record with their times
    columns: dict[str, dict[str, float]]  # value and limit by column
    evidence: str
    inputs: dict[str, str]
    at: str


def drifted(values: dict[str, float], limits: dict[str, float]) -> list[str]:
    """Columns beyond their limit, the farthest first, in words."""
    beyond = sorted((c for c in values if values[c] > limits[c]), key=lambda c: -values[c] / limits[c])
    return [f"{c} moved by {values[c]:.2f} standard deviations, limit {limits[c]:.2f}" for c in beyond]


def decide(
    reasons: Sequence[str], earlier: Sequence[Verdict], settings: MonitorSettings, at: datetime
) -> tuple[Action, tuple[str, ...]]:
    """The action for a window with these drifted columns, after the *earlier* verdicts of its source and model."""
    if not reasons:
        return "keep", ("no column is beyond its limit",)
    recent = [v.flagged for v in earlier[-(settings.memory - 1) :]] if settings.memory > 1 else []
    flagged = 1 + sum(recent)
    if flagged < settings.needed:
        return "watch", (*reasons, f"{flagged} of the last {settings.memory} windows; {settings.needed} are needed")
    asked = [v for v in earlier if v.action == "retrain"]
    # A time far ahead is of a clock that was put back, and holds nothing up.
    if asked and abs(at - datetime.fromisoformat(asked[-1].at)) < timedelta(hours=settings.cooldown_hours):
        return "watch", (
            *reasons,
            f"retraining was asked for at {asked[-1].at}; cooldown {settings.cooldown_hours:g} h",
        )
    return "retrain", (*reasons, f"{flagged} of the last {settings.memory} windows")
