"""A challenger behind the answers: it sees the same pictures, decides nothing, and never holds an answer up."""

import threading
import time

import pytest

from components.pipeline.operating import PointRequest, set_point
from components.scorelog import table
from components.service.filing import DEFAULT_SOURCE
from components.service.shadow import CHALLENGER
from tests.service.conftest import png, scratched
from tests.service_pages import Line


def until(holds, seconds=60.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def send(line, content, name):
    answer = line.http.post(f"/v1/score?name={name}", content=content, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text


@pytest.fixture
def other(bundle, tmp_path):
    """The same model at another threshold, which a gentle picture passes."""
    return set_point(PointRequest(bundle, alpha=0.5, out=tmp_path / "other")).place


@pytest.fixture
def line(bundle, other, tmp_path):
    line = Line(bundle, tmp_path, shadow=str(other), reload_seconds=0.01)
    with line.http:
        yield line


def test_both_models_see_the_same_pictures_and_only_one_decides(line):
    for i in range(4):
        send(line, scratched(i) if i % 2 else png(i), f"{i}.png")
    until(lambda: line.get("/v1/models")["shadow"]["n"] == 4)
    told = line.get("/v1/models")["shadow"]
    assert told["alarms"][0] == sum(row["decision"] == "anomalous" for row in line.get("/v1/records")["records"])
    assert told["agree"] + len(told["differ"]) == 4
    assert all(one["threshold"] > one["other"]["threshold"] for one in told["differ"])
    assert len(line.names()) == 4  # the pages of the line show each picture once
    assert line.recorder.shipper.ship()
    store = line.recorder.store
    kept = list(table.newest_first(store, table.SHADOW, DEFAULT_SOURCE))
    own = {row["record_id"]: row for row in table.newest_first(store, table.SCORES, DEFAULT_SOURCE)}
    assert {row["record_id"] for row in kept} == set(own)
    assert len({row["threshold"] for row in kept} | {row["threshold"] for row in own.values()}) == 2
    assert told["alarms"][1] == sum(row["decision"] == "anomalous" for row in kept)


def test_a_full_queue_drops_and_counts_and_answers_all_the_same(bundle, other, tmp_path):
    line = Line(bundle, tmp_path, shadow=str(other), shadow_queue=2)
    held = threading.Event()
    line.service.shadow.busy = lambda: not held.is_set()
    with line.http:
        for i in range(6):
            send(line, png(i), f"{i}.png")
        assert line.service.shadow.dropped >= 3  # one may be in hand, two wait
        assert "loupe_shadow_dropped" in line.http.get("/metrics").text
        held.set()


def test_what_cannot_be_opened_or_scored_costs_the_line_nothing(bundle, tmp_path):
    line = Line(bundle, tmp_path, shadow=str(tmp_path / "nowhere"), reload_seconds=0.01)
    with line.http:
        send(line, png(1), "a.png")
        until(lambda: line.service.shadow._items.empty())
        send(line, png(2), "b.png")
    assert line.get("/v1/models")["shadow"]["n"] == 0


class Challenged:
    """A registry whose challenger moves."""

    def __init__(self, folders):
        self.folders, self.version = folders, None

    def challenger(self, _):
        return self.version

    def fetch(self, _, version, __):
        return self.folders[version]


def test_the_challenger_is_followed(line, bundle, other):
    shadow = line.service.shadow
    registry = Challenged({"2": other, "3": bundle})
    shadow.where, shadow.every, shadow._bundle = CHALLENGER, -1.0, None
    line.champion.registry = registry
    assert shadow.bundle() is None
    registry.version = "2"
    assert shadow.bundle().calibration.alpha == 0.5
    registry.version = "3"
    assert shadow.bundle().calibration.alpha == 0.2
    line.champion.registry = None


def test_pairs_of_other_models_go(line, bundle):
    shadow = line.service.shadow
    send(line, png(1), "a.png")
    until(lambda: line.get("/v1/models")["shadow"]["n"] == 1)
    shadow.where, shadow._bundle, shadow._asked = str(bundle), None, -1e9
    send(line, png(2), "b.png")
    until(lambda: [a["image_id"] for a, _ in shadow.pairs] == ["b.png"])
