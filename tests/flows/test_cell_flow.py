"""The flow of one cell: what it hands on, and which slot it holds while it trains."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from flows import cell, slot


@pytest.fixture
def held(monkeypatch):
    """The limits that are entered and left, in order, and with which promises."""
    told = []

    @contextmanager
    def concurrency(name, **promises):
        told.append((name, promises))
        yield
        told.append(("left", name))

    monkeypatch.setattr(slot, "concurrency", concurrency)
    return told


def test_a_run_hands_on_names_and_holds_the_slot_of_its_device(monkeypatch, tmp_path, held):
    given = []

    def work(store, key, owner, lapse, hold):
        given.append((store.address, key, owner.attempt, lapse))
        with hold():
            held.append("training")
        return "tree"

    monkeypatch.setattr(cell, "work", work)
    monkeypatch.setattr(cell, "runtime", SimpleNamespace(flow_run=SimpleNamespace(id="run")))
    assert cell.cell.fn(str(tmp_path), "key", attempt=3, device="h100", lapse_seconds=9.0) == "tree"
    assert given == [(str(tmp_path), "key", 3, 9.0)]
    (name, promises), *rest = held
    assert name == slot.device_limit("h100")
    assert promises["strict"]  # a limit that is missing on the server is an error, not a free way
    assert promises["lease_duration"] == slot.DEVICE_LEASE
    assert rest == ["training", ("left", name)]


def test_without_a_device_no_limit_is_asked_for(held):
    with slot.device_slot(None):
        held.append("training")
    assert held == ["training"]
