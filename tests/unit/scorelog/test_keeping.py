"""The score log of years: what a reader opens, what compaction writes, what may go and what stays."""

import io
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.core.errors import ObjectError, SettingsError
from components.core.records import LOG_COLUMNS
from components.scorelog import keeping, table
from components.scorelog.settings import ScoreLogSettings
from components.scorelog.shipper import clip_key, image_key
from components.scorelog.whose import of_product, scored_by
from components.storage import LocalStore

AT = datetime(2026, 1, 20, tzinfo=UTC)


def record(number, day=2, source="line", **more):
    at = datetime(2026, 1, day, tzinfo=UTC) + timedelta(seconds=number / 4)
    known = {"record_id": f"{day:02d}{number:06d}", "scored_at": at.isoformat(), "source": source}
    return dict.fromkeys(LOG_COLUMNS) | known | {"sha256": f"{number:064d}"} | more


class Counting(LocalStore):
    """Notes which objects are opened."""

    def __init__(self, root):
        super().__init__(root)
        self.opened = []

    def get(self, key):
        self.opened.append(key)
        return super().get(key)


@pytest.fixture
def store(tmp_path):
    return Counting(tmp_path)


def ids(records):
    return [r["record_id"] for r in records]


def interleaved(store, count, seed=0):
    """Records in segments of three writers that overlap; returns all ids in order."""
    rows, rng = [record(n) for n in range(count)], np.random.default_rng(seed)
    of = rng.integers(0, 3, count)
    for writer in range(3):
        mine = [row for row, who in zip(rows, of, strict=True) if who == writer]
        for start in range(0, len(mine), 7):
            table.write(store, table.SCORES, f"{writer}-{start}", mine[start : start + 7])
    return ids(rows)


def test_records_of_overlapping_segments_come_in_order_both_ways(store):
    wanted = interleaved(store, 200)
    assert ids(table.oldest_first(store, table.SCORES, "line")) == wanted
    assert ids(table.newest_first(store, table.SCORES, "line")) == wanted[::-1]


@pytest.mark.parametrize("days", [1, 4, 16])
def test_a_window_costs_the_same_whatever_came_before(store, days):
    for day in range(1, days + 1):
        for start in range(0, 100, 10):
            table.write(store, table.SCORES, f"s{day}-{start}", [record(n, day) for n in range(start, start + 10)])
    rows = table.newest_first(store, table.SCORES, "line")
    assert ids(next(rows) for _ in range(25)) == ids(record(n, days) for n in range(99, 74, -1))
    assert len(store.opened) == 3
    store.opened.clear()
    since = record(80, days)["scored_at"]
    assert ids(table.oldest_first(store, table.SCORES, "line", since))[-19:] == ids(
        record(n, days) for n in range(81, 100)
    )
    assert len(store.opened) <= 3


def test_compaction_writes_objects_of_so_many_rows_that_are_read_one_at_a_time(store):
    wanted = interleaved(store, 200)
    assert keeping.compact(store, table.SCORES, "line", AT, rows=50) > 4
    keys = list(store.keys("scores/"))
    assert [len(pq.read_table(io.BytesIO(store.get(key)))) for key in keys] == [50] * 4
    assert ids(table.oldest_first(store, table.SCORES, "line")) == wanted
    store.opened.clear()
    rows = table.newest_first(store, table.SCORES, "line")
    assert ids(next(rows) for _ in range(20)) == wanted[:-21:-1]
    assert len(store.opened) == 1
    assert keeping.compact(store, table.SCORES, "line", AT, rows=50) == 0


def test_two_compactions_at_once_and_a_late_segment_lose_and_double_nothing(store, monkeypatch):
    wanted = interleaved(store, 60)
    delete = store.delete
    monkeypatch.setattr(store, "delete", lambda _: None)  # the first one is killed before it deletes
    keeping.compact(store, table.SCORES, "line", AT, rows=25)
    monkeypatch.setattr(store, "delete", delete)
    table.write(store, table.SCORES, "late", [record(1000)])
    keeping.compact(store, table.SCORES, "line", AT, rows=10)
    assert ids(table.oldest_first(store, table.SCORES, "line")) == [*wanted, record(1000)["record_id"]]
    assert keeping.compact(store, table.SCORES, "line", AT, rows=10) == 0


def test_an_object_that_is_joined_away_while_it_is_read_costs_no_record(store, monkeypatch):
    wanted, get = interleaved(store, 60), store.get
    seen, joined = [], []

    def meanwhile(key):
        seen.append(key)
        if len(seen) == 4 and not joined:
            joined.append(keeping.compact(LocalStore(store.root), table.SCORES, "line", AT, rows=20))
        return get(key)

    monkeypatch.setattr(store, "get", meanwhile)
    assert ids(table.oldest_first(store, table.SCORES, "line")) == wanted
    assert joined


def test_objects_of_older_versions_have_no_times_in_their_names_and_are_read_with_the_first(store):
    rows = [record(n) for n in range(6)]
    for name, part in (("b", rows[:3]), ("a", rows[3:])):
        store.put(f"scores/source=line/day=2026-01-02/{name}.parquet", table.encoded(table.SCORES, part))
    table.write(store, table.SCORES, "new", [record(6)])
    assert ids(table.oldest_first(store, table.SCORES, "line")) == ids(record(n) for n in range(7))
    assert keeping.compact(store, table.SCORES, "line", AT) == 3
    assert ids(table.newest_first(store, table.SCORES, "line")) == ids(record(n) for n in range(6, -1, -1))


def named(store, number, day, sha):
    table.write(store, table.SCORES, f"s{day}-{number}", [record(number, day, sha256=sha)])
    store.put(image_key(sha), b"pixels")
    store.put(clip_key(sha), b"clip")


def test_what_is_older_than_kept_goes_with_pictures_that_nothing_else_names(store):
    """A picture that came again later, and one that a reviewer spoke of, stay."""
    named(store, 1, 2, "a" * 64)
    named(store, 2, 2, "b" * 64)
    named(store, 3, 2, "c" * 64)
    named(store, 4, 19, "b" * 64)
    label = {"record_id": "02000003", "labelled_at": "2026-01-02T01:00:00+00:00", "source": "line", "sha256": "c" * 64}
    table.write(store, table.LABELS, "l", [{**label, "image_id": "x", "label": "defect", "reviewer": ""}])
    assert keeping.tidy(store, AT, ScoreLogSettings(keep_days=10)) == (0, 3)
    assert ids(table.newest_first(store, table.SCORES, "line")) == ["19000004"]
    assert sorted(store.keys("images/")) == [image_key("b" * 64), image_key("c" * 64)]
    assert sorted(store.keys("clips/")) == sorted([clip_key("b" * 64), clip_key("c" * 64)])
    assert keeping.tidy(store, AT, ScoreLogSettings(keep_days=10)) == (0, 0)
    assert keeping.tidy(store, AT) == (0, 0)


def test_where_not_all_records_can_be_read_nothing_goes(store, monkeypatch):
    named(store, 1, 2, "a" * 64)
    named(store, 2, 19, "b" * 64)
    get = store.get

    def gone(key):
        if "day=2026-01-19" in key:
            raise ObjectError("joined with others a moment ago")
        return get(key)

    monkeypatch.setattr(store, "get", gone)
    before = list(store.keys())
    with pytest.raises(ObjectError):
        keeping.forget(store, AT - timedelta(days=10))
    assert list(store.keys()) == before


def test_decisions_on_parts_are_joined_and_go_with_the_others(store):
    for day in (1, 20):
        for number in range(3):
            row = {"record_id": f"{day}-{number}", "scored_at": f"2026-01-{day:02d}T00:00:0{number}+00:00"}
            table.write(store, table.PARTS, f"{day}-{number}", [row | {"source": "top+side", "part": "P1"}])
    assert keeping.compact(store, table.PARTS, "top+side", datetime(2026, 1, 25, tzinfo=UTC)) == 6
    assert len(list(table.newest_first(store, table.PARTS, "top+side"))) == 6
    assert keeping.forget(store, datetime(2026, 1, 10, tzinfo=UTC)) == 1
    assert {r["record_id"][:2] for r in table.newest_first(store, table.PARTS, "top+side")} == {"20"}


def test_what_a_challenger_said_goes_with_the_pictures_it_said_it_of(store):
    named(store, 1, 2, "a" * 64)
    table.write(store, table.SHADOW, "w2", [record(1, 2, sha256="a" * 64)])
    table.write(store, table.SHADOW, "w19", [record(4, 19, sha256="b" * 64)])
    assert keeping.tidy(store, AT, ScoreLogSettings(keep_days=10)) == (0, 2)
    assert ids(table.newest_first(store, table.SHADOW, "line")) == ["19000004"]
    assert list(store.keys("images/")) == []


@pytest.mark.parametrize("given", [{"keep_days": 0}, {"rows": 0}])
def test_a_policy_that_keeps_nothing_is_refused(given):
    with pytest.raises(SettingsError, match="scorelog"):
        ScoreLogSettings(**given)


def test_whose_a_record_is():
    mine = {"model_version": "v", "registered": "cells", "dataset": "photos"}
    old = mine | {"registered": None}
    assert scored_by(mine, "v", "cells")
    assert not scored_by(mine, "v", "housings")  # the same bundle under another name
    assert not scored_by(mine, "w", "cells")
    assert scored_by(old, "v", "cells")
    assert scored_by(mine, "v", None)
    assert of_product(mine | {"model_version": "w"}, "v", "cells", "photos")  # an earlier version of this name
    assert not of_product(mine, "v", "housings", "photos")  # two products whose folders have one name
    assert of_product(old | {"model_version": "w"}, "v", "cells", "photos")
    assert not of_product(mine | {"model_version": "w"}, "v", None, "photos")
