"""The same picture handed to two services, or twice to one, is one record when it is read."""

import multiprocessing
from datetime import UTC, datetime

import pytest

from components.scorelog import keeping, table
from components.scorelog.labels import read_labels
from components.scorelog.once import KEYED, Once, identity
from components.scorelog.spool import Spool
from components.service.recorder import Recorder
from components.service.settings import ServiceSettings
from components.storage import LocalStore, open_store
from tests.service.conftest import png
from tests.service_pages import AT, Line
from tests.unit.scorelog.test_score_log import record


def asked(line, content, key, source="line-1", **headers):
    given = {"Content-Type": "image/png", **({"Idempotency-Key": key} if key else {}), **headers}
    return line.http.post(f"/v1/score?source={source}&name=a.png", content=content, headers=given)


@pytest.fixture
def pair(bundle, tmp_path):
    """Two services with a spool each, in front of one store."""
    made = [Line(bundle, tmp_path / name) for name in ("one", "two")]
    for line in made:
        line.recorder.store = line.recorder.shipper.store = open_store(str(tmp_path / "shared"))
        line.service.history.reader.store = line.recorder.store
    with made[0].http, made[1].http:
        yield made


def read(line, source="line-1"):
    store = line.recorder.store
    return [list(way(store, table.SCORES, source)) for way in (table.newest_first, table.oldest_first)]


def test_two_services_in_front_of_one_store_do_not_double(pair):
    answers = [asked(line, png(1), "cam-7/000123").json()["results"][0] for line in pair]
    other = asked(pair[1], png(2), "cam-7/000124").json()["results"][0]
    assert answers[0]["record_id"] == answers[1]["record_id"] != other["record_id"]
    for line in pair:
        assert line.recorder.shipper.ship()
    assert sum(len(part.load(pair[0].recorder.store)) for part in table.parts(
        pair[0].recorder.store, f"scores/source=line-1/day={AT.date()}/")) == 3  # fmt: skip
    for rows in read(pair[0]):
        assert sorted(r["record_id"] for r in rows) == sorted([answers[0]["record_id"], other["record_id"]])
    for line in pair:
        line.recorder.recent.clear()
        assert len(line.get("/v1/records")["records"]) == 2
        line.recorder.load()
        assert len(line.recorder.latest()) == 2
        assert len(line.get("/v1/records")["records"]) == 2
    keeping.compact(pair[0].recorder.store, table.SCORES, "line-1", datetime(2030, 1, 1, tzinfo=UTC))
    (part,) = table.parts(pair[0].recorder.store, f"scores/source=line-1/day={AT.date()}/")
    assert len(part.load(pair[0].recorder.store)) == 2


def test_all_labels_of_a_keyed_record_are_read_and_the_last_counts(pair):
    line = pair[0]
    known = asked(line, png(1), "x").json()["results"][0]["record_id"]
    for label in ("defect", "withdrawn", "defect"):
        answer = line.http.put(f"/v1/records/{known}/label", json={"label": label})
        assert answer.status_code == 200, answer.text
    line.ship()
    store = line.recorder.store
    assert len(list(table.newest_first(store, table.LABELS, "line-1"))) == 3
    assert len(list(table.oldest_first(store, table.LABELS, "line-1"))) == 3
    assert read_labels(store)[known]["label"] == "defect"


def test_a_request_that_is_sent_again_is_answered_as_before(pair):
    line = pair[0]
    first, again = (asked(line, png(1), "x").json()["results"][0] for _ in range(2))
    assert first == again
    assert len(line.recorder.spools[table.SCORES].pending()) == 1
    wrong = asked(line, png(2), "x")
    assert wrong.status_code == 409
    assert "its id was used for another picture" in wrong.json()["detail"]
    without = [asked(line, png(1), None).json()["results"][0]["record_id"] for _ in range(2)]
    assert len({first["record_id"], *without}) == 3
    assert asked(line, png(1), "x", "line-2").json()["results"][0]["record_id"] != first["record_id"]
    assert asked(line, png(1), "a\x7fb").status_code == 422


def test_pictures_of_one_request_have_ids_of_their_own():
    names = {identity(source, "x", number) for source in ("a", "b") for number in range(3)}
    assert len(names) == 6
    assert all(name.startswith(KEYED) and len(name) == 32 for name in names)


def _written(root, number):
    spool = Spool(root / f"spool-{number}")
    for i in range(20):
        at = f"2026-01-02T{'23:59:59' if number else '00:00:00'}.{i:06d}+00:00"
        spool.append([record(i, record_id=identity("line-1", str(i), 0), scored_at=at)])


def test_two_processes_write_and_every_picture_is_read_once(tmp_path):
    processes = [multiprocessing.get_context("fork").Process(target=_written, args=(tmp_path, n)) for n in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    store = LocalStore(tmp_path / "store")
    for number in (0, 1):
        settings = ServiceSettings(spool=str(tmp_path / f"s{number}"))
        recorder = Recorder(store, settings)
        rows = Spool(tmp_path / f"spool-{number}").pending()
        recorder.append(rows)
        assert recorder.shipper.ship()
    found = [r["record_id"] for r in table.newest_first(store, table.SCORES, "line-1")]
    assert len(found) == len(set(found)) == 20


def test_around_midnight_it_is_one_too(tmp_path):
    store = LocalStore(tmp_path / "store")
    name = identity("line-1", "x", 0)
    rows = [record(1, day=day, record_id=name) for day in ("2026-01-02", "2026-01-03")]
    table.write(store, table.SCORES, "a", rows)
    for way in (table.newest_first, table.oldest_first):
        assert len(list(way(store, table.SCORES, "line-1"))) == 1


def test_what_is_remembered_is_two_days():
    once = Once()
    keyed, other = {"record_id": identity("s", "k", 0)}, {"record_id": "0" * 32}
    assert [once.fresh(keyed), once.fresh(keyed), once.fresh(other), once.fresh(other)] == [True, False, True, True]
    once.turn()
    assert not once.fresh(keyed)
    once.turn()
    once.turn()
    assert once.fresh(keyed)
