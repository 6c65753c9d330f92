"""The handshake of a line controller as pure transitions: a cell goes in, a cell comes out, nothing else happens.

The controller holds ``trigger`` high and waits for ``result ready``; it reads OK, NG or error, holds ``acknowledge``
high until ``result ready`` falls, and lowers both. What is out of turn is an error, and never OK.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class State(StrEnum):
    """Where a cell stands; CLEARING waits until trigger and acknowledge are low again."""

    OFF = "off"
    READY = "ready"
    BUSY = "busy"
    RESULT = "result"
    ERROR = "error"
    CLEARING = "clearing"


# What may follow on what; every state may go off.
ALLOWED = {
    State.OFF: {State.READY, State.CLEARING},
    State.READY: {State.BUSY, State.ERROR, State.CLEARING},
    State.BUSY: {State.RESULT, State.ERROR},
    State.RESULT: {State.CLEARING, State.ERROR},
    State.ERROR: {State.CLEARING},
    State.CLEARING: {State.READY},
}


@dataclass(frozen=True)
class Cell:
    """One place of inspection; *trigger* and *acknowledge* are the levels that the controller holds.

    *ok* is meant in RESULT alone, *id* names the decision, *reason* says in words why there is an error.
    """

    state: State = State.OFF
    trigger: bool = False
    acknowledge: bool = False
    ok: bool = False
    id: str = ""
    reason: str = ""

    @property
    def outputs(self) -> dict[str, bool | str]:
        """What the controller reads."""
        done = self.state is State.RESULT
        return {
            "ready": self.state is State.READY,
            "busy": self.state is State.BUSY,
            "result_ready": done or self.state is State.ERROR,
            "ok": done and self.ok,
            "ng": done and not self.ok,
            "error": self.state is State.ERROR,
            "reason": self.reason,
            "id": self.id,
            "state": self.state.value,
        }


def _at(cell: Cell, state: State, ok: bool = False, identity: str = "", reason: str = "") -> Cell:
    return replace(cell, state=state, ok=ok, id=identity, reason=reason)


def _free(cell: Cell) -> Cell:
    held = cell.trigger or cell.acknowledge
    return _at(cell, State.CLEARING if held else State.READY)


def opened(cell: Cell) -> Cell:
    """The service can inspect."""
    return _free(cell) if cell.state is State.OFF else cell


def closed(cell: Cell) -> Cell:
    """The service cannot inspect any more."""
    return _at(cell, State.OFF)


def signalled(cell: Cell, trigger: bool, acknowledge: bool, problem: str = "") -> Cell:
    """The levels that the controller holds now; *problem* is why a trigger cannot be taken, empty where it can."""
    rising, seen = trigger and not cell.trigger, acknowledge and not cell.acknowledge
    cell = replace(cell, trigger=trigger, acknowledge=acknowledge)
    if cell.state is State.READY and rising and not acknowledge:
        return _at(cell, State.ERROR, reason=problem) if problem else _at(cell, State.BUSY)
    if cell.state in (State.RESULT, State.ERROR) and seen:  # held since before, it is of another result
        return _at(cell, State.CLEARING)
    if cell.state is State.BUSY and rising:
        return failed(cell, "a trigger came while the one before was being decided; wait for ready")
    if cell.state is State.RESULT and rising:
        return _at(cell, State.ERROR, reason="a trigger came before the result was acknowledged")
    return _free(cell) if cell.state in (State.CLEARING, State.READY) else cell


def judged(cell: Cell, ok: bool, identity: str) -> Cell:
    """The decision is there; without a trigger that waits for it nothing changes."""
    return _at(cell, State.RESULT, ok, identity) if cell.state is State.BUSY else cell


def failed(cell: Cell, reason: str, identity: str = "") -> Cell:
    """There is no decision, for a *reason*; without a trigger that waits nothing changes."""
    return _at(cell, State.ERROR, identity=identity, reason=reason) if cell.state is State.BUSY else cell
