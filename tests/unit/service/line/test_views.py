"""Pictures of one part: one decision when all are there, an error and never OK when one stays away."""

import json

import pytest

from components.core.errors import CalibrationError, StorageError
from components.decision.parts import Rule
from components.service.line.settings import PartSettings
from components.service.line.views import RESTARTED, Views

TWO = PartSettings(("top", "side"), timeout_s=2.0)


def picture(source, part="P1", p=0.5, **more):
    return {
        "id": f"{part}-{source}", "kind": "picture", "source": source, "image_id": f"{source}.png", "part": part,
        "lot": "L1", "recipe": None, "station": source, "operator": None, "decision": "normal", "p_value": p,
        "score": 1.0, "threshold": 2.0, "regions": [], "model": {"name": "m", "version": "v"},
    } | more  # fmt: skip


class Time:
    def __init__(self, tmp_path, settings=TWO, rule=lambda: Rule(2, 1, 0.1)):
        self.now, self.told, self.kept = 0.0, [], tmp_path / "parts.json"
        self.views = Views(settings, self.kept, rule, self.told.append, lambda: self.now)


def test_the_last_picture_decides_by_the_rule(tmp_path):
    one = Time(tmp_path)
    assert one.views.add(picture("top", p=0.04)) is None
    decided = one.views.add(picture("side", p=0.9))
    assert (decided["decision"], decided["p_value"]) == ("anomalous", pytest.approx(0.08))
    assert (decided["part"], decided["lot"], decided["station"], decided["source"]) == ("P1", "L1", None, "top")
    assert [v["source"] for v in decided["views"]] == ["top", "side"]
    assert one.told == [decided]
    assert json.loads(one.kept.read_text()) == {}


def test_parts_do_not_mix_and_others_are_none(tmp_path):
    one = Time(tmp_path)
    for message in (picture("top", "P1"), picture("side", "P2"), picture("back", "P1"), picture("side", None)):
        assert one.views.add(message) is None
    assert one.told == []
    assert one.views.add(picture("side", "P1"))["decision"] == "normal"


def test_a_second_picture_of_a_view_stands_for_the_first(tmp_path):
    one = Time(tmp_path)
    one.views.add(picture("top", p=0.001))
    one.views.add(picture("top", p=0.9))
    assert one.views.add(picture("side", p=0.9))["decision"] == "normal"


def test_a_camera_that_stays_away_is_an_error(tmp_path):
    one = Time(tmp_path)
    one.views.add(picture("top"))
    one.now = 1.9
    one.views.look()
    assert one.told == []
    one.now = 2.1
    one.views.look()
    one.views.look()
    (error,) = one.told
    assert (error["decision"], error["p_value"]) == ("error", None)
    assert error["reason"] == "no picture of side within 2 s of the first"
    assert one.views.add(picture("side")) is None  # too late: it is no second half of anything


def test_a_restart_makes_open_parts_errors(tmp_path):
    one = Time(tmp_path)
    one.views.add(picture("top"))
    one.views.stop()
    two = Time(tmp_path)
    two.views.start()
    (error,) = two.told
    assert (error["decision"], error["reason"], error["part"]) == ("error", RESTARTED, "P1")
    two.views.stop()
    three = Time(tmp_path)
    three.views.start()
    assert three.told == []
    three.views.stop()


def test_the_parts_in_memory_are_bounded(tmp_path):
    one = Time(tmp_path, PartSettings(("top", "side"), waiting=2))
    for number in range(3):
        one.now = float(number)
        one.views.add(picture("top", f"P{number}"))
    (error,) = one.told
    assert (error["part"], error["reason"]) == ("P0", "more than 2 parts wait for pictures")


def test_a_rule_that_cannot_decide_is_an_error(tmp_path):
    def none():
        raise CalibrationError("too few")

    one = Time(tmp_path, rule=none)
    one.views.add(picture("top"))
    assert one.views.add(picture("side"))["reason"] == "too few"


def test_two_services_that_see_the_same_pictures_say_the_same(tmp_path):
    told = []
    for order in (("top", "side"), ("side", "top")):
        one = Time(tmp_path / order[0])
        one.kept.parent.mkdir()
        for name in order:
            one.views.add(picture(name))
        told.append(one.told[0]["id"])
    assert told[0] == told[1]


def test_who_looks_lives_on_when_a_decision_cannot_be_written(tmp_path):
    one = Time(tmp_path)
    one.views.told = lambda _: (_ for _ in ()).throw(StorageError("full"))
    one.views.add(picture("top"))
    one.now = 3.0
    with pytest.raises(StorageError):
        one.views.look()
    assert json.loads(one.kept.read_text()) == {}
