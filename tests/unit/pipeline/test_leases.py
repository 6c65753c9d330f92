"""What a run of a cell leaves for the others: its beat, and how far it is."""

import json
import time

import pytest

from components.core.errors import StorageError
from components.pipeline.leases import Beat, Owner, State, read_lease, repeated
from components.storage import LocalStore

AT = "fan/cells/key"


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "run"
    write(root / ".model.checkpoint" / "state", "step 1")
    write(root / "folds" / "0" / "model", "done")
    return root


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def names(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_later_attempt_takes_the_cell_over_and_the_earlier_one_ends(store):
    lost = []
    first = Beat(store, AT, Owner("one", 1), lambda: lost.append("one"))
    second = Beat(store, AT, Owner("two", 2), lambda: lost.append("two"))
    first.beat()
    assert (read_lease(store, AT)["run"], read_lease(store, AT)["beat"]) == ("one", 1)
    second.beat()
    first.beat()
    assert lost == ["one"]
    assert read_lease(store, AT)["run"] == "two"


def test_an_earlier_attempt_that_wrote_late_is_overwritten(store):
    lost = []
    Beat(store, AT, Owner("two", 2), lambda: lost.append("two")).beat()
    store.put(f"{AT}/lease.json", json.dumps({"run": "one", "attempt": 1, "beat": 9}).encode())
    Beat(store, AT, Owner("two", 2), lambda: lost.append("two")).beat()
    assert lost == []
    assert read_lease(store, AT)["run"] == "two"


def test_another_run_goes_on_with_the_files_and_stages_of_the_first(store, folder, tmp_path):
    first = State(store, AT, folder)
    first.done.append("train")
    assert first.keep()
    assert not first.keep()
    second = State(store, AT, tmp_path / "elsewhere")
    second.take_up()
    assert second.done == ["train"]
    assert names(second.folder) == names(folder)
    assert not second.keep()


def test_only_what_has_changed_travels_and_what_it_replaces_goes(store, folder):
    state = State(store, AT, folder)
    state.keep()
    before = set(store.keys(f"{AT}/state/"))
    write(folder / ".model.checkpoint" / "state", "step two")
    assert state.keep()
    after = set(store.keys(f"{AT}/state/"))
    assert len(before) == len(after) == 2
    assert len(before & after) == 1
    state.clear()
    assert list(store.keys(AT)) == []


def test_what_is_half_written_is_left_out(store, folder, tmp_path):
    write(folder / ".model.77.part" / "weights", "half")
    write(folder / ".model.77.old" / "weights", "old")
    write(folder / ".model.state" / "state", "of an earlier fit")
    write(folder / ".model.minutes.json", "{}")
    State(store, AT, folder).keep()
    State(store, AT, tmp_path / "out").take_up()
    assert set(names(tmp_path / "out")) == {".model.checkpoint/state", ".model.minutes.json", "folds/0/model"}


def test_files_that_change_while_they_are_read_are_no_state(store, folder, monkeypatch):
    """A checkpoint is two files that belong together; they are renamed at once, but not read at once."""
    state, get = State(store, AT, folder), store.exists

    def meanwhile(key):
        write(folder / ".model.checkpoint" / "state", "a later step")
        return get(key)

    monkeypatch.setattr(store, "exists", meanwhile)
    assert not state.keep()
    assert not get(f"{AT}/state.json")
    monkeypatch.undo()
    assert state.keep()


def test_a_damaged_state_is_told_and_the_run_begins_anew(store, folder, tmp_path, caplog):
    State(store, AT, folder).keep()
    for key in list(store.keys(f"{AT}/state/")):
        store.put(key, b"cut")
    state = State(store, AT, tmp_path / "out")
    state.take_up()
    assert "begins anew" in caplog.text
    assert state.done == []


def test_a_store_that_does_not_answer_is_asked_again(caplog):
    asked = []

    def ask():
        asked.append(1)
        if len(asked) == 1:
            raise StorageError("is away")

    with repeated(0.01, ask):
        until = time.monotonic() + 20
        while len(asked) < 3 and time.monotonic() < until:
            time.sleep(0.01)
    count = len(asked)
    assert count >= 3
    assert "is away; tried again" in caplog.text
    time.sleep(0.05)
    assert len(asked) == count  # behind the block nobody asks
