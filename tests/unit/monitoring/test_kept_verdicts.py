"""Verdicts in the store: the last is found without reading all, what asks stands in a list, clocks may jump back."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from components.core.records import LOG_COLUMNS
from components.core.settings import plain
from components.decision.bundle import Manifest
from components.monitoring import kept, monitor
from components.monitoring.evidently import Comparison
from components.monitoring.monitor import Watch
from components.monitoring.settings import MonitorSettings
from components.monitoring.verdict import Verdict, decide
from components.pictures.decoding import DEFAULT
from components.retraining.outcomes import Retrained, key_of, outcomes, recent, refusal_of, store_outcome
from components.scorelog import table
from components.storage import LocalStore

AT = datetime(2026, 1, 2, tzinfo=UTC)
SMALL = MonitorSettings(window=4, stride=2, min_n=2, settle_seconds=0.0)


def verdict(number, action="keep", model="cells", at=AT):
    name = f"line-v-{number:05d}"
    return Verdict(action, name, "line", model, "v", number, True, ("r",), {}, {}, "", {}, at.isoformat())


class Counting(LocalStore):
    def __init__(self, root):
        super().__init__(root)
        self.asked = []

    def get(self, key):
        self.asked.append(key)
        return super().get(key)

    def exists(self, key):
        self.asked.append(key)
        return super().exists(key)


@pytest.fixture
def store(tmp_path):
    return Counting(tmp_path / "store")


@pytest.mark.parametrize("many", [0, 1, 2, 7, 64, 300])
def test_the_last_number_is_found_by_asking_for_a_few(store, many):
    for number in range(1, many + 1):
        store.put(kept._key("line", "v", number), b"{}")
    assert kept.last_number(store, "line", "v") == many
    assert len(store.asked) <= 20


def test_numbers_beyond_five_digits_come_behind_the_others(store):
    for number in (*range(99_998, 100_002),):
        store.put(kept._key("line", "v", number), json.dumps(plain(verdict(number))).encode())
    found = kept.latest(store, "line", "v", "cells", 100_002)
    assert [next(found).number for _ in range(4)] == [100_001, 100_000, 99_999, 99_998]


def test_only_open_verdicts_are_read_when_events_are_looked_for(store):
    for number in range(1, 40):
        kept.keep(store, verdict(number, "retrain" if number % 13 == 0 else "keep"))
    kept.note_older(store)
    assert [v.number for v in kept.unsent(store)] == [13, 26, 39]
    for one in kept.unsent(store):
        kept.mark_sent(store, one, "event", AT)
    late, settings = AT + timedelta(hours=7), MonitorSettings()
    again = kept.unanswered(store, settings, late, lambda v: v.number < 39)
    assert [v.number for v in again] == [39]
    store.asked.clear()
    assert [v.number for v in kept.unanswered(store, settings, late, lambda _: False)] == [39]
    assert sum(key.startswith(kept.VERDICTS) for key in store.asked) <= 2
    assert kept.last_asked(store, "line", "v", "cells").number == 39


def test_verdicts_of_older_versions_are_noted_once(store):
    for number, action in ((1, "keep"), (2, "retrain"), (3, "keep")):
        one = verdict(number, action)
        store.put(kept.key_of(one), json.dumps(plain(one)).encode())
    assert [v.number for v in kept.unsent(store)] == [2]
    kept.close(store, verdict(2, "retrain"))
    assert kept.unsent(store) == []
    assert kept.last_asked(store, "line", "v", "cells").number == 2


def test_a_note_without_its_verdict_asks_for_nothing(store, monkeypatch):
    """Killed between the two, or the window came to something else when it was judged again."""
    kept.note_older(store)
    with monkeypatch.context() as patch:
        patch.setattr(store, "put_new", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            kept.keep(store, verdict(1, "retrain"))
    assert kept.unsent(store) == []
    kept.keep(store, verdict(1, "keep"))
    assert kept.unsent(store) == []
    assert kept.last_asked(store, "line", "v", "cells") is None


def test_of_two_monitors_the_first_word_stands_and_another_model_keeps_its_own(store):
    first = kept.keep(store, verdict(1, "retrain"))
    assert kept.keep(store, replace(verdict(1), reasons=("later",))) == first
    other = kept.keep(store, verdict(1, model="housings"))
    assert (other.number, other.id, other.model) == (2, "line-v-00002", "housings")
    assert [v.model for v in kept.latest(store, "line", "v", "cells")] == ["cells"]


def test_a_cooldown_does_not_wait_for_a_time_that_a_wrong_clock_wrote():
    asked = verdict(2, "retrain", at=AT + timedelta(days=400))
    assert decide(("x",), [verdict(1), asked], MonitorSettings(), AT)[0] == "retrain"
    soon = verdict(2, "retrain", at=AT + timedelta(seconds=3))  # of a machine whose clock is a little ahead
    assert decide(("x",), [verdict(1), soon], MonitorSettings(), AT)[0] == "watch"


class Still:
    """A window that shows no drift, without Evidently."""

    def values(self):
        return {"score": 0.0}


@pytest.fixture
def watch(store, tmp_path, monkeypatch):
    """A monitor of model ``cells`` with bundle ``v`` at a given time, and a way to write records."""
    manifest = Manifest("patchcore", "photos", "all", "v" * 12, "d", DEFAULT, {})
    monkeypatch.setattr(Manifest, "read", classmethod(lambda *_: manifest))
    monkeypatch.setattr(Watch, "_compared", lambda *_: (Still(), {"score": 1.0}))
    monkeypatch.setattr(Watch, "_shown", lambda *_: "dashboard")
    monkeypatch.setattr(monitor, "file_hash", lambda _: "h")
    assert Comparison  # what these stand for
    written = [0]

    def write(times, name="cells", version="v" * 12):
        rows = []
        for at in times:
            written[0] += 1
            known = {"record_id": f"{written[0]:06d}", "source": "line", "scored_at": at.isoformat()}
            rows.append(dict.fromkeys(LOG_COLUMNS) | known | {"model_version": version, "registered": name})
        table.write(store, table.SCORES, f"s{written[0]}", rows)

    def judged(at, model="cells"):
        return list(Watch(store, tmp_path, model, SMALL, at).source("line"))

    return write, judged


def seconds(begin, *numbers, days=0):
    return [begin + timedelta(days=days, seconds=n) for n in numbers]


def test_records_of_one_model_are_not_judged_as_another_s(watch):
    """Two names with one bundle on one line, and another bundle between them."""
    write, judged = watch
    write(seconds(AT, 1, 3))
    write(seconds(AT, 2, 4), name="housings")
    write(seconds(AT, 5, 6), version="w" * 12)
    later = AT + timedelta(hours=1)
    assert [(v.number, v.window["n"]) for v in judged(later)] == [(1, 2)]
    assert [(v.number, v.model, v.window["n"]) for v in judged(later, "housings")] == [(2, "housings", 2)]
    assert judged(later) == []
    write(seconds(AT, 7, 8))
    (again,) = judged(later)
    assert (again.number, again.window["n"], again.window["last"][1]) == (3, 4, "000008")


def test_a_clock_that_is_put_back_stops_no_monitoring(watch):
    """Judged while the clock was a month ahead; what comes after it was put right is judged at once."""
    write, judged = watch
    write(seconds(AT, 1, 2))
    assert len(judged(AT + timedelta(hours=1))) == 1
    write(seconds(AT, 1, 2, days=30))
    assert len(judged(AT + timedelta(days=30, hours=1))) == 1
    write(seconds(AT, 11, 12))
    (found,) = judged(AT + timedelta(hours=2))
    assert found.window["last"][0] == (AT + timedelta(seconds=12)).isoformat()


def test_late_records_are_judged_and_what_was_looked_through_is_not_read_again(watch, store):
    """The line belongs to another model; of ours two records arrive, cut off for three days."""
    write, judged = watch
    for day in range(20):
        write(seconds(AT, *range(10), days=day), name="housings", version="w" * 12)
    now = AT + timedelta(days=20)
    assert judged(now) == []
    store.asked.clear()
    assert judged(now) == []
    days = {key.split("/")[2] for key in store.asked if key.startswith("scores/")}
    assert len(days) == 7
    write(seconds(AT, 100, 101, days=17))
    (found,) = judged(now)
    assert found.window["n"] == 2


def test_a_window_is_judged_without_the_history_before_it(watch, store):
    write, judged = watch
    for day in range(12):
        write(seconds(AT, *range(10), days=day))
    now = AT + timedelta(days=12)
    assert len(judged(now)) == 60
    write(seconds(AT, 1, 2, days=12))
    store.asked.clear()
    (found,) = judged(now + timedelta(hours=1))
    assert (found.number, found.window["n"]) == (61, 4)
    assert sum(key.startswith("scores/") for key in store.asked) <= 3
    assert sum(key.startswith("monitoring/verdicts/") for key in store.asked) <= 40


def outcome(number, action="refuse", pool="p", model="cells", hours=0):
    at = (AT + timedelta(hours=hours)).isoformat()
    return Retrained(action, f"line-v-{number}", model, "line", "1", "2", ("r",), pool, 0.0, None, "", at)


def test_outcomes_of_a_day_and_refusals_are_found_without_reading_the_others(store):
    old = outcome(1, pool="old")
    store.put(key_of(old.verdict), json.dumps(plain(old)).encode())  # by an older version
    for number in range(2, 40):
        store_outcome(store, outcome(number, "promote", f"p{number}", hours=24 * number))
    recent(store, "cells", AT)
    store.asked.clear()
    since = AT + timedelta(hours=24 * 38)
    assert [found.verdict for found in recent(store, "cells", since)] == ["line-v-38", "line-v-39"]
    assert refusal_of(store, "cells", "old") == old
    assert refusal_of(store, "cells", "p38") is None
    assert len(store.asked) <= 12
    assert len(outcomes(store, "cells")) == 39
    assert recent(store, "housings", AT) == []
