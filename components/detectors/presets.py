"""Presets by name: those that a method states, and ``long``, for which no method needs figures of its own.

``long`` is the preset ``cpu`` with more epochs, and its training ends where the signal no longer rises.
"""

import dataclasses
from typing import Any

LONG = "long"
TIMES = 12  # epochs of long in those of cpu: about an hour where cpu takes five minutes


def presets_of(stated: dict[str, Any]) -> dict[str, Any]:
    """The presets that a method states, and ``long`` where it states none of that name: of a closed form it is cpu."""
    if LONG in stated or "cpu" not in stated:
        return stated
    return {**stated, LONG: lengthened(stated["cpu"], TIMES)}


def counts(settings: Any) -> tuple[str, ...]:
    """The settings that say how long is trained: ``epochs``, ``*_epochs`` and ``draws``."""
    names = [field.name for field in dataclasses.fields(settings)]
    return tuple(name for name in names if name in ("epochs", "draws") or name.endswith("_epochs"))


def lengthened(settings: Any, times: float) -> Any:
    """*settings* with *times* as many epochs in each phase, at least one; a phase of none stays out."""
    return dataclasses.replace(settings, **{name: _times(getattr(settings, name), times) for name in counts(settings)})


def _times(value: Any, times: float) -> Any:
    if isinstance(value, tuple):
        return tuple(_times(part, times) for part in value)
    return max(1, int(value * times)) if value else value
