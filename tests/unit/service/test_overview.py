"""The overview: alarms by hour and shift, rate against alpha, drift in words an operator knows, the store's state."""

from datetime import UTC, datetime, timedelta

import pytest

from components.core.errors import SettingsError
from components.service import operators
from components.service.desk import Desk
from components.service.overview import shift_starts
from components.service.plainly import moved, phrases, reference_means
from components.service.settings import ServiceSettings
from tests.service_pages import AT, Line

HOUR = timedelta(hours=1)


@pytest.fixture
def line(bundle, tmp_path):
    return Line(bundle, tmp_path)


def shown(line, hours=24, source="line-1"):
    told = line.get(f"/v1/overview?hours={hours}")
    return next(one for one in told["sources"] if one["source"] == source)


def test_alarms_are_counted_by_hour_and_shift_of_each_source(line):
    for i in range(4):
        line.put(f"a{i}", i * HOUR, alarm=i < 2)  # 12:30 and 11:30 are alarms, 10:30 and 9:30 none
    line.put("early", 7 * HOUR, alarm=True)  # 5:30 is of the night shift
    line.put("other", source="line-2")
    line.put("old", 40 * HOUR, alarm=True)
    found = shown(line)
    assert (found["n"], found["alarms"]) == (5, 3)
    assert [b["alarms"] for b in found["buckets"]][-2:] == [1, 1]
    assert sum(b["n"] for b in found["buckets"]) == 5
    assert [(s["name"], s["n"], s["alarms"]) for s in found["shifts"]] == [("06:00", 4, 2), ("22:00", 1, 1)]
    assert shown(line, source="line-2")["alarms"] == 0
    assert shown(line, 72)["alarms"] == 4


def test_what_is_shipped_counts_as_what_is_at_hand(line):
    line.put("a", HOUR, alarm=True)
    line.ship()
    line.put("b")
    found = shown(line)
    assert (found["n"], found["alarms"]) == (2, 1)
    assert found["points"][-1][1] == pytest.approx(found["buckets"][-1]["threshold"] - 1)


def test_open_alarms_are_those_that_nobody_has_labelled(line):
    first = line.put("a", alarm=True)
    line.put("b", alarm=True)
    assert line.http.put(f"/v1/records/{first}/label", json={"label": "defect"}).status_code == 200
    assert shown(line)["to_review"] == 1


def test_the_rate_is_told_against_alpha_and_of_the_model_in_service_alone(line):
    alpha = line.bundle.calibration.alpha
    for i in range(40):
        line.put(f"n{i}", alarm=i < 30)
    line.put("foreign", alarm=True, model_version="another")
    rate = shown(line)["rate"]
    assert (rate["state"], rate["n"], rate["alarms"], rate["other_models"]) == ("above", 40, 30, 1)
    assert rate["alpha"] == alpha
    assert rate["low"] < 0.75 < rate["high"]


def test_a_rate_from_few_pictures_says_so(line):
    line.put("a", alarm=True)
    assert shown(line)["rate"]["state"] == "few"


def test_drift_is_told_in_words_with_its_size(bundle, tmp_path):
    reference = reference_means(bundle)
    columns = {
        "embedding_15": {"value": 2.0, "limit": 1.0},
        "embedding_03": {"value": 1.5, "limit": 1.0},
        "brightness": {"value": 3.0, "limit": 1.0},
        "contrast": {"value": 0.1, "limit": 1.0},
    }
    verdict = {
        "action": "watch",
        "at": AT.isoformat(),
        "window": {"n": 3, "first": [(AT - 40 * HOUR).isoformat(), ""], "last": [AT.isoformat(), "~"]},
        "columns": columns,
    }
    line = Line(bundle, tmp_path, Desk(lambda source, _: [verdict] if source == "line-1" else []))
    for i in range(3):  # two of them lie before the hours that are shown
        line.put(f"d{i}", i * 20 * HOUR, brightness=0.88 * reference["brightness"])
    found = shown(line)["drift"]
    assert found["state"] == "watch"
    assert found["phrases"] == [{"key": "drift.darker", "percent": 12.0}, {"key": "drift.look", "n": 2}]
    assert found["history"][-1]["worst"] == 3.0


def test_without_a_verdict_drift_is_not_judged(line):
    line.put("a")
    assert shown(line)["drift"]["state"] == "unknown"


def test_phrases_for_each_way_a_column_can_move():
    then = {"score": 10.0, "brightness": 0.5, "contrast": 0.2, "sharpness": 4.0}
    now = {"score": 12.0, "brightness": 0.6, "contrast": 0.2001, "sharpness": 3.0}
    said = phrases(["score", "p_value", "brightness", "contrast", "sharpness"], now, then)
    assert [one["key"] for one in said] == [
        "drift.higher", "drift.brighter", "drift.contrast_spread", "drift.softer",
    ]  # fmt: skip
    assert said[1]["percent"] == 20
    assert phrases(["brightness"], {}, then) == [{"key": "drift.brightness"}]
    assert moved({"a": {"value": 2, "limit": 1}, "b": {"value": 9, "limit": 1}, "c": {"value": 1, "limit": 1}}) == [
        "b",
        "a",
    ]


def test_the_state_of_the_store_is_told_and_records_that_wait_for_it_count(line, monkeypatch):
    from components.core.errors import StorageError

    line.put("a", alarm=True)
    monkeypatch.setattr(line.recorder.store, "put", lambda *_: (_ for _ in ()).throw(StorageError("gone")))
    line.recorder.shipper.ship()
    line.recorder.recent.clear()
    told = line.get("/v1/overview")
    assert told["store"]["state"] == "waiting"
    assert not told["complete"]
    assert told["sources"][0]["n"] == 1


def test_shifts_begin_where_the_clock_of_the_plant_says():
    since, at = datetime(2026, 7, 1, 0, tzinfo=UTC), datetime(2026, 7, 1, 12, tzinfo=UTC)
    starts = shift_starts(since, at, ("06:30", "14:00", "22:00"), "Europe/Berlin")
    assert [f"{s.astimezone(UTC):%d %H:%M}" for s in starts] == ["30 20:00", "01 04:30", "01 12:00"]


@pytest.mark.parametrize("wrong", [{"shifts": ("6 o'clock",)}, {"shifts": ("24:00",)}, {"time_zone": "Nowhere/City"}])
def test_shifts_and_zones_that_do_not_exist_are_refused(wrong):
    with pytest.raises(SettingsError, match=r"service\."):
        ServiceSettings(**wrong)


def test_an_overview_is_counted_once_for_all_who_ask_within_a_few_seconds(line, monkeypatch):
    asked, span = [], line.service.history.span
    monkeypatch.setattr(line.service.history, "span", lambda *given: (asked.append(given), span(*given))[1])
    for _ in range(3):
        line.get("/v1/overview")
    assert len(asked) == 1
    monkeypatch.setattr(operators, "FRESH", -1.0)
    line.get("/v1/overview")
    assert len(asked) == 2


def test_another_span_is_refused(line):
    assert line.http.get("/v1/overview?hours=25").status_code == 422
