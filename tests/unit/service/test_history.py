"""Records of any age for the review page: filters, search, pages beyond what is in memory, labels, tags, the table."""

import csv
import io
import threading
from datetime import timedelta

import pytest

from components.core.errors import RequestError, StorageError
from components.scorelog import table
from components.scorelog.keeping import compact
from components.scorelog.reading import Reader
from components.service.history import Filter
from tests.service.conftest import png
from tests.service_pages import AT, Line

HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.fixture
def line(bundle, tmp_path):
    return Line(bundle, tmp_path, recent=4)


def label(line, record_id, given, **more):
    return line.http.put(f"/v1/records/{record_id}/label", json={"label": given} | more)


def test_pages_go_on_beyond_memory_and_show_each_record_once(line):
    for i in range(9):
        line.put(f"p{i}", i * 7 * HOUR)  # over three days, in the store
    line.ship()
    for i in range(3):
        line.put(f"new{i}", i * timedelta(minutes=1) - HOUR)  # newer ones that are at hand only
    found, before = [], ""
    for _ in range(5):
        answer = line.get(f"/v1/records?limit=3{before}")
        found.append([row["image_id"] for row in answer["records"]])
        if answer["next"] is None:
            break
        before = "&before=" + answer["next"].replace("+", "%2B")
    assert found == [["new0", "new1", "new2"], ["p0", "p1", "p2"], ["p3", "p4", "p5"], ["p6", "p7", "p8"]]


def test_a_record_at_hand_and_in_the_store_is_one(line):
    line.put("a")
    assert line.recorder.shipper.ship()
    assert line.names() == ["a"]


def test_the_newest_of_one_model_are_found_however_many_others_lie_between(line):
    for i in range(6):
        line.put(f"m{i}", i * 20 * HOUR, model_version="a" if i % 2 else "b")
    line.ship()
    assert line.service.history.newest(Filter(version="a"), 2)["image_id"].to_pylist() == ["m1", "m3"]


def test_equal_times_do_not_tear_a_page(line):
    for i in range(7):
        line.put(f"t{i}")
    line.ship()
    first = line.get("/v1/records?limit=4")
    rest = line.get("/v1/records?limit=4&before=" + first["next"].replace("+", "%2B"))
    assert sorted(row["image_id"] for row in first["records"] + rest["records"]) == [f"t{i}" for i in range(7)]


@pytest.mark.parametrize("shipped", [True, False])
def test_filters(line, shipped):
    line.put("good", HOUR)
    line.put("bad", 2 * HOUR, alarm=True)
    line.put("old", 3 * DAY, alarm=True, score=99.0)
    line.put("else", source="line-2")
    assert label(line, "id-bad", "false_alarm").status_code == 200
    if shipped:
        line.ship()
    assert line.names("decision=anomalous") == ["bad", "old"]
    assert line.names("source=line-2") == ["else"]
    assert line.names("labelled=no&decision=anomalous") == ["old"]
    assert line.names("labelled=yes") == line.names("labelled=false_alarm") == ["bad"]
    assert line.names("labelled=defect") == []
    assert line.names("since=2026-11-28T11:00:00Z") == ["else", "good"]
    assert line.names("until=2026-11-28") == ["old"]
    assert line.names("min_score=50&max_score=100") == ["old"]
    assert line.names("search=OO") == ["good"]
    assert line.names("search=id-bad") == ["bad"]


@pytest.mark.parametrize("query", ["decision=odd", "labelled=maybe", "since=yesterday", "min_score=nan", "limit=0"])
def test_a_filter_that_makes_no_sense_is_refused(line, query):
    assert line.http.get(f"/v1/records?{query}").status_code == 422


def test_tags_and_reviewers_are_kept_and_found(line):
    line.put("a", alarm=True)
    said = label(line, "id-a", "defect", reviewer="Ada", tags=["scratch, deep", " dust ", "dust"]).json()
    assert (said["reviewer"], said["tags"]) == ("Ada", "scratch deep, dust")
    assert line.names("search=SCRATCH") == line.names("search=ada") == ["a"]
    line.ship()
    (row,) = table.newest_first(line.recorder.store, table.LABELS, "line-1")
    assert row["tags"] == "scratch deep, dust"
    assert label(line, "id-a", "defect", tags=[" , "]).status_code == 422


def test_a_withdrawn_label_is_none(line):
    line.put("a", alarm=True)
    label(line, "id-a", "defect")
    label(line, "id-a", "withdrawn")
    assert line.names("labelled=no") == ["a"]


def test_only_an_alarm_can_be_a_false_alarm(line):
    line.put("fine")
    answer = label(line, "id-fine", "false_alarm")
    assert answer.status_code == 422
    assert "no alarm" in answer.json()["detail"]
    assert label(line, "id-fine", "defect").status_code == 200  # one that the model missed


def test_records_that_only_the_store_holds_can_be_labelled(line):
    line.put("a", 2 * DAY, alarm=True)
    line.ship()
    assert label(line, "id-a", "defect").status_code == 200
    assert line.get("/v1/records")["records"][0]["label"] == "defect"
    assert label(line, "unknown", "defect").status_code == 404
    with pytest.raises(RequestError, match="not in the score log"):
        line.service.history.find("unknown")


def test_who_labelled_is_the_token_where_no_name_is_given(bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("LOUPE_TOKEN", "open")
    monkeypatch.setenv("LOUPE_OPERATOR_TOKEN", "master")
    line = Line(bundle, tmp_path)
    line.put("a")
    for token, who in (("open", "token of the reader"), ("master", "token of the operator")):
        line.http.headers["Authorization"] = f"Bearer {token}"
        assert label(line, "id-a", "defect").json()["reviewer"] == who
    assert label(line, "id-a", "defect", reviewer=" Bo ").json()["reviewer"] == "Bo"


def test_the_table_holds_what_the_filters_let_through_and_no_formulas(line):
    line.put("=1+1", alarm=True)
    line.put("b", HOUR)
    line.ship()
    label(line, "id-=1+1", "defect", reviewer="Ada", tags=["@scratch"])
    answer = line.http.get("/v1/records.csv?decision=anomalous")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["image_id"], row["label"], row["reviewer"], row["tags"]) == ("'=1+1", "defect", "Ada", "'@scratch")
    assert len(list(csv.reader(io.StringIO(line.http.get("/v1/records.csv").text)))) == 3


def test_without_the_store_the_latest_are_shown_and_it_is_said(line, monkeypatch):
    line.put("a")
    monkeypatch.setattr(line.recorder.store, "keys", lambda *_: (_ for _ in ()).throw(StorageError("gone")))
    monkeypatch.setattr(line.recorder.store, "folders", lambda *_: (_ for _ in ()).throw(StorageError("gone")))
    line.recorder.loaded = True
    answer = line.get("/v1/records")
    assert [row["image_id"] for row in answer["records"]] == ["a"]
    assert not answer["complete"]


def test_a_store_that_hangs_keeps_no_picture_of_the_line_waiting(line, monkeypatch):
    """More pages ask than there are threads for everything else."""
    hang = threading.Event()
    monkeypatch.setattr(line.recorder.store, "folders", lambda *_: (hang.wait(60), [])[1])
    with line.http as http:
        asking = [threading.Thread(target=http.get, args=("/v1/records",)) for _ in range(60)]
        for one in asking:
            one.start()
        answer = http.post("/v1/score", content=png(1), headers={"Content-Type": "image/png"})
        waiting = sum(one.is_alive() for one in asking)
        hang.set()
        for one in asking:
            one.join()
    assert (answer.status_code, waiting) == (200, 60)


def test_compacted_objects_stand_for_their_segments(line):
    for i in range(3):
        line.put(f"c{i}", DAY + i * HOUR)
        line.ship()
    reader = Reader(line.recorder.store, ("record_id", "score"), 100)
    day = (AT - DAY).date().isoformat()
    assert len(reader.day("line-1", day)) == 3
    compact(line.recorder.store, table.SCORES, "line-1", AT)
    assert len(reader.day("line-1", day)) == 3


def test_an_object_is_read_once_and_old_ones_leave_memory(line, monkeypatch):
    for i in range(3):
        line.put(f"c{i}")
        line.ship()
    read, get = [], line.recorder.store.get
    monkeypatch.setattr(line.recorder.store, "get", lambda key: (read.append(key), get(key))[1])
    reader = Reader(line.recorder.store, ("record_id", "absent"), 100)
    assert reader.day("line-1", "2026-11-28")["absent"].null_count == 3
    assert len(reader.day("line-1", "2026-11-28")) == len(read) == 3
    small = Reader(line.recorder.store, ("record_id",), 1)
    small.day("line-1", "2026-11-28")
    assert len(small._kept) == 1


@pytest.mark.parametrize("shipped", [True, False])
def test_records_of_another_product_in_the_same_store_are_never_shown(line, shipped):
    line.put("ours")
    line.put("theirs", dataset="another", model_version="other")
    line.put("older", HOUR, model_version="earlier")
    if shipped:
        line.ship()
    line.recorder.mine = line.champion.concerns
    assert line.names() == ["ours", "older"]


def test_what_was_compacted_meanwhile_is_shown_once_and_a_damaged_object_hides_no_other(line):
    line.put("a")
    line.ship()
    (key,) = [k for k in line.recorder.store.keys("scores/") if k.endswith(".parquet")]
    line.recorder.store.put(
        key.replace("T", "T", 1).replace(".parquet", "-again.parquet"), line.recorder.store.get(key)
    )
    line.recorder.store.put(f"{key.rpartition('/')[0]}/broken.parquet", b"none")
    assert line.names() == ["a"]
