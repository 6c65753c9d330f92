"""The handshake: whatever a controller does, only allowed transitions, and OK for a decision alone."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.service.line import handshake
from components.service.line.cell import Handshake
from components.service.line.handshake import ALLOWED, Cell, State, closed, failed, judged, opened, signalled
from components.service.line.messages import PART, PICTURE
from components.service.line.settings import LineSettings, OutputSettings, PartSettings, RecipeSettings

EVENTS = st.one_of(
    st.tuples(st.just("levels"), st.booleans(), st.booleans(), st.sampled_from(["", "recipe 9 is not configured"])),
    st.tuples(st.just("judged"), st.booleans()),
    st.tuples(st.just("failed")),
    st.tuples(st.just("opened")),
    st.tuples(st.just("closed")),
)


def stepped(cell, event):
    name, *more = event
    if name == "levels":
        return signalled(cell, more[0], more[1], more[2])
    steps = {"failed": lambda c: failed(c, "late"), "opened": opened, "closed": closed}
    return judged(cell, more[0], "id-1") if name == "judged" else steps[name](cell)


@settings(max_examples=400, deadline=None)
@given(st.lists(EVENTS, max_size=60))
def test_only_allowed_transitions_and_never_ok_without_a_decision(events):
    cell, good = Cell(), None
    for event in events:
        after = stepped(cell, event)
        assert after.state in {cell.state, State.OFF} | ALLOWED[cell.state], (cell, event)
        if after.state is State.BUSY and cell.state is State.READY:
            good = None  # a new trigger: nothing is known of it
            assert event[0] == "levels"
            assert event[1]
            assert not event[3]
        if event[0] == "judged" and cell.state is State.BUSY:
            good = event[1]
        out = after.outputs
        assert sum([out["ready"], out["busy"], out["result_ready"]]) <= 1
        assert sum([out["ok"], out["ng"], out["error"]]) == int(out["result_ready"])
        assert not out["ok"] or good is True
        assert not out["ng"] or good is False
        assert bool(out["reason"]) == out["error"]
        assert not out["ready"] or not (after.trigger or after.acknowledge)
        cell = after


@settings(deadline=None)
@given(st.lists(EVENTS, max_size=40))
def test_from_anywhere_the_controller_gets_back_to_ready(events):
    cell = Cell()
    for event in events:
        cell = stepped(cell, event)
    cell = failed(opened(cell), "late")
    for acknowledge in (False, True):
        cell = signalled(cell, cell.trigger, acknowledge)
    cell = signalled(cell, False, False)
    assert cell.state is State.READY


def test_every_allowed_transition_is_taken_by_some_signal():
    taken = set()
    for state in State:
        for trigger in (False, True):
            cell = Cell(state, trigger)
            events = [("levels", bool(t), bool(a), p) for t in (0, 1) for a in (0, 1) for p in ("", "x")]
            for event in [*events, ("judged", True), ("failed",), ("opened",)]:
                taken.add((state, stepped(cell, event).state))
    wanted = {(before, after) for before, afters in ALLOWED.items() for after in afters}
    assert wanted == {(before, after) for before, after in taken if before is not after}
    assert handshake.closed(replace(Cell(), state=State.RESULT)).state is State.OFF


class Told:
    """A handshake with two recipes, and what its listener heard."""

    def __init__(self, timeout=30.0, views=()):
        recipes = {1: RecipeSettings("line-1", "mono"), 2: RecipeSettings("top", None, "other")}
        outputs = {"plc": OutputSettings("opcua", "opc.tcp://127.0.0.1:4840")}
        made = LineSettings(outputs, PartSettings(views), recipes, timeout)
        self.one = Handshake(made, lambda recipe: "served is another model" if recipe.model else "")
        self.heard = []
        self.one.listeners.append(lambda outputs: self.heard.append(outputs["state"]))
        self.one.open()


def message(decision="normal", kind=PICTURE, part=None, reason=None):
    return {"id": "r1", "kind": kind, "decision": decision, "part": part, "reason": reason}


def test_a_cycle_as_a_controller_sees_it():
    told = Told()
    told.one.put({"recipe": 1, "part": "P1", "trigger": True})
    arrival = told.one.arrives("line-1", {"part": None, "lot": "L9"})
    assert (arrival.group, arrival.trace["part"], arrival.trace["lot"], arrival.trace["recipe"]) == (
        "mono", "P1", "L9", "1",
    )  # fmt: skip
    told.one.hears(message(), arrival.cycle)
    assert told.one.outputs["ok"]
    told.one.put({"acknowledge": True})
    told.one.put({"trigger": False, "acknowledge": False})
    assert told.heard == ["ready", "busy", "result", "clearing", "ready"]


def test_pictures_that_are_not_of_the_trigger_answer_nothing():
    told = Told()
    assert told.one.arrives("line-1", {}) is None
    told.one.put({"recipe": 1, "part": "P1", "trigger": True})
    assert told.one.arrives("line-2", {}) is None
    assert told.one.arrives("line-1", {"part": "P0"}) is None
    told.one.hears(message(), None)  # of a picture that came before the trigger
    told.one.hears(message(), told.one.cycle.number - 1)
    assert told.one.outputs["busy"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"recipe": 7}, "recipe 7 is not configured; known are 1, 2"),
        ({"recipe": 2}, "served is another model"),
        ({"recipe": 1, "part": "=1"}, "use 1 to 64 letters"),
    ],
)
def test_a_recipe_that_cannot_be_inspected_is_an_error_with_its_reason(given, reason):
    told = Told()
    told.one.put(given | {"trigger": True})
    assert told.one.outputs["error"]
    assert reason in told.one.outputs["reason"]
    assert not told.one.outputs["ok"]


def test_no_decision_in_time_is_an_error():
    told = Told(timeout=0.05)
    told.one.put({"recipe": 1, "trigger": True})
    late = told.one._timer
    late.join(5)
    assert told.one.outputs["error"]
    assert "no decision within 0.05 s of the trigger: did a picture of line-1 come?" in told.one.outputs["reason"]


def test_views_answer_by_their_part():
    told = Told(views=("line-1", "side"))
    told.one.put({"recipe": 1, "trigger": True})
    first, second = told.one.arrives("side", {}), told.one.arrives("line-1", {})
    assert first.trace["part"] == second.trace["part"]
    assert first.trace["part"].startswith("part-")
    told.one.hears(message(), first.cycle)  # one picture alone is no answer
    assert told.one.outputs["busy"]
    told.one.hears(message("error", PART, first.trace["part"], "no picture of side"), None)
    assert told.one.outputs["reason"] == "no picture of side"
    assert told.one.outputs["id"] == "r1"
