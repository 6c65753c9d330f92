"""Which part a picture shows travels from the request, or a file's name, to answer, record, page and table."""

import csv
import io
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from components.core.errors import RequestError, SettingsError
from components.core.records import LOG_COLUMNS, TRACE_COLUMNS
from components.decision.bundle import Bundle
from components.scorelog import table
from components.service.inbox import process
from components.service.settings import InboxSettings, WatchSettings
from components.service.streams import Frame
from components.service.trace import check_pattern, checked, joined, of_headers, of_name
from components.service.watch import Event, Watch, logged
from components.storage import LocalStore
from tests.conftest import tile
from tests.service_pages import Line

TOLD = {"part": "P-4711", "lot": "L7", "recipe": "3", "station": "Presse Süd", "operator": "Jo (night)"}


def png(seed=1, scratch=False):
    pixels, stream = tile(seed), io.BytesIO()
    if scratch:
        pixels[30:50, 20:44] = 250
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def line(bundle, tmp_path):
    made = Line(bundle, tmp_path)
    with made.http:
        yield made


def asked(line, query="", content=None, **headers):
    given = {"Content-Type": "image/png"} | headers
    return line.http.post(f"/v1/score?source=line-1{query}", content=content or png(), headers=given)


def test_query_form_and_headers_tell_the_same(line):
    by_query = line.http.post("/v1/score", params=TOLD, content=png(), headers={"Content-Type": "image/png"}).json()[
        "results"
    ][0]
    by_form = line.http.post("/v1/score", data=TOLD, files={"images": ("a.png", png())}).json()["results"][0]
    headers = {f"X-Loupe-{name.title()}": value.encode() for name, value in TOLD.items()}
    by_header = asked(line, **headers).json()["results"][0]
    for result in (by_query, by_form, by_header):
        assert {name: result[name] for name in TRACE_COLUMNS} == TOLD


def test_it_is_in_the_log_the_page_the_table_and_the_search(line):
    identity = line.http.post("/v1/score", data=TOLD, files={"images": ("a.png", png(1, True))}).json()
    line.ship()
    (record,) = table.newest_first(line.recorder.store, table.SCORES, "line")
    assert {name: record[name] for name in TRACE_COLUMNS} == TOLD
    assert json.loads(record["regions"]) == identity["results"][0]["regions"]
    (shown,) = line.get("/v1/records")["records"]
    assert {name: shown[name] for name in TRACE_COLUMNS} == TOLD
    assert shown["regions"] == identity["results"][0]["regions"] != []
    (row,) = csv.DictReader(io.StringIO(line.http.get("/v1/records.csv").text))
    assert row["part"] == "P-4711"
    assert json.loads(row["regions"]) == shown["regions"]
    assert line.names("search=p-47") == ["a.png"]
    assert line.names("search=nowhere") == []


def test_old_records_without_it_are_read(line):
    line.put("old.png")
    old = {k: v for k, v in line.recorder.latest()[0].items() if k not in (*TRACE_COLUMNS, "regions")}
    before = table.COLUMNS[table.SCORES]
    try:
        table.COLUMNS[table.SCORES] = tuple(c for c in LOG_COLUMNS if c not in (*TRACE_COLUMNS, "regions"))
        table.write(line.recorder.store, table.SCORES, "old", [old | {"record_id": "older", "embedding": [0.0] * 16}])
    finally:
        table.COLUMNS[table.SCORES] = before
    shown = line.get("/v1/records?search=older")["records"]
    assert [(row["part"], row["regions"]) for row in shown] == [(None, None)]
    assert line.http.get("/v1/records.csv").status_code == 200


@pytest.mark.parametrize(
    "value", ["=1+1", "a" * 65, "a\nb", "a\x00b", "<b>", '"', "a;b", " a", "-x", "a\u202eb", "*"], ids=repr
)
def test_unsafe_text_is_one_clear_error(line, value):
    with pytest.raises(RequestError, match="use 1 to 64 letters, digits"):
        checked({"part": value})
    answer = line.http.post("/v1/score", params={"part": value}, content=png(), headers={"Content-Type": "image/png"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("part ")
    assert line.get("/v1/records")["records"] == []


def test_a_field_that_is_told_twice_must_be_the_same():
    assert joined({"part": "A"}, {"part": "A", "lot": ""})["part"] == "A"
    with pytest.raises(RequestError, match="part is given twice, as 'A' and 'B'"):
        joined({"part": "A"}, {"part": "B"})


def test_a_header_that_is_no_text_is_refused():
    assert of_headers({"x-loupe-part": "Süd".encode().decode("latin-1")})["part"] == "Süd"
    with pytest.raises(RequestError, match="is not UTF-8"):
        of_headers({"x-loupe-part": "\xfc"})


@pytest.mark.parametrize(
    ("pattern", "name", "told"),
    [
        ("{part}", "P1.png", {"part": "P1"}),
        ("{lot}/{part}_{station}", "2026/L7/P1.2_top.png", {"lot": "L7", "part": "P1.2", "station": "top"}),
        ("{lot}/{part}_{station}", "P1_top.png", {}),
        ("{part}_{station}", "a_b_c.png", {"part": "a", "station": "b_c"}),
        ("{part}", "=1.png", {}),
        ("", "P1.png", {}),
    ],
)
def test_a_name_tells_what_the_pattern_says(pattern, name, told):
    assert of_name(pattern, name) == dict.fromkeys(TRACE_COLUMNS) | told


@pytest.mark.parametrize("pattern", ["{shift}", "{part}{part}", "{}"])
def test_a_pattern_with_an_unknown_field_is_no_setting(pattern):
    with pytest.raises(SettingsError, match="cannot stand; use"):
        check_pattern(pattern, "x")
    for settings in (InboxSettings, WatchSettings):
        with pytest.raises(SettingsError, match="names"):
            settings(names=pattern)


def test_the_inbox_reads_it_from_names(bundle, tmp_path):
    store = LocalStore(tmp_path / "store")
    for name in ("L7/P1_top.png", "odd.png"):
        store.put(f"inbox/line-1/{name}", png())
    settings = InboxSettings(0, names="{lot}/{part}_{station}")
    heard = []
    assert process(store, Bundle.open(bundle), datetime.now(UTC), settings=settings, tell=heard.extend).scored == 2
    assert [r["part"] for r in heard] == ["P1", None]
    told = {r["image_id"]: (r["lot"], r["part"]) for r in table.newest_first(store, table.SCORES, "line-1")}
    assert told == {"L7/P1_top.png": ("L7", "P1"), "odd.png": (None, None)}


def test_a_watched_folder_reads_it_from_names(bundle, tmp_path):
    kept: list[Event] = []
    watch = Watch(Bundle.open(bundle), "watch-x", kept.append, WatchSettings(behind=1, names="{lot}_{part}"))
    pixels = tile(201)
    pixels[30:50, 20:44] = 250
    watch._scored(Frame("L7_P2.png", np.asarray(pixels), True))
    watch._end()
    (event,) = kept
    assert (event.record["lot"], event.record["part"]) == ("L7", "P2")
    line = Line(bundle, tmp_path)
    heard = []
    logged(line.recorder, 5.0, tell=heard.extend)(event)
    (record,) = line.recorder.latest()
    assert [r["record_id"] for r in heard] == [record["record_id"]]
    assert record["part"] == "P2"
    assert json.loads(record["regions"])
