"""The score log: on disk before the answer, in the store exactly once, read by partition."""

import json
import multiprocessing
import os
import signal
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from components.core.errors import StorageError
from components.core.records import LOG_COLUMNS
from components.scorelog import keeping, table
from components.scorelog.labels import read_labels
from components.scorelog.shipper import Shipper, image_key
from components.scorelog.spool import Spool, read_segment
from components.storage import LocalStore


def record(number: int, source="line-1", day="2026-01-02", **more):
    at = f"{day}T00:{number // 60:02d}:{number % 60:02d}+00:00"
    values = dict.fromkeys(LOG_COLUMNS) | {
        "record_id": f"{number:06d}",
        "source": source,
        "scored_at": at,
        "score": float(number),
        "embedding": [0.0] * 16,
        "sha256": f"{number:064d}",
    }
    return values | more


class Outage(LocalStore):
    """A store that is out of reach while *down*, or after *writes* more objects."""

    down, writes = False, 10**9

    def put(self, key, data):
        self.writes -= 1
        if self.down or self.writes < 0:
            raise StorageError("out of reach")
        super().put(key, data)


@pytest.fixture
def store(tmp_path):
    return Outage(tmp_path / "store")


@pytest.fixture
def shipper(store, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    return Shipper(store, {table.SCORES: Spool(tmp_path / "spool", rows=10)}, images)


def stored(store, source="line-1"):
    return [r["record_id"] for r in table.newest_first(store, table.SCORES, source)][::-1]


def test_a_record_is_on_disk_when_append_returns(tmp_path):
    def crash():
        Spool(tmp_path).append([record(1), record(2)])
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=crash)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    (segment,) = Spool(tmp_path).closed()
    assert [r["record_id"] for r in read_segment(segment)] == ["000001", "000002"]


def test_a_segment_in_use_is_left_to_its_process(tmp_path):
    busy = Spool(tmp_path)
    busy.append([record(1)])
    assert Spool(tmp_path).closed() == []
    busy.close()
    assert len(Spool(tmp_path).closed()) == 1


def test_a_torn_line_is_dropped_and_a_damaged_one_is_kept_aside(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(record(1)).encode() + b"\nnonsense\n" + b'{"record_id": "half')
    assert [r["record_id"] for r in read_segment(path)] == ["000001"]
    assert path.with_suffix(".bad").exists()


def test_an_outage_delays_and_loses_nothing(store, shipper):
    spool = shipper.spools[table.SCORES]
    store.down = True
    for i in range(25):
        spool.append([record(i)])
    assert not shipper.ship()
    assert shipper.failing
    assert len(spool.pending()) == 25
    store.down = False
    assert shipper.ship()
    assert stored(store) == [f"{i:06d}" for i in range(25)]
    assert spool.pending() == []


def test_a_crash_between_the_partitions_of_a_segment_duplicates_nothing(store, shipper):
    shipper.spools[table.SCORES].append([record(1, "line-1"), record(2, "line-2"), record(3, "line-3")])
    store.writes = 2
    assert not shipper.ship()
    store.writes = 10**9
    assert shipper.ship()
    assert [stored(store, f"line-{i}") for i in (1, 2, 3)] == [["000001"], ["000002"], ["000003"]]


def test_a_crash_before_the_segment_is_removed_duplicates_nothing(store, tmp_path):
    spool = Spool(tmp_path / "spool")
    spool.append([record(1)])
    spool.close()
    (segment,) = spool.closed()
    for _ in range(2):
        table.write(store, table.SCORES, segment.stem, read_segment(segment))
    assert stored(store) == ["000001"]


def test_images_go_before_the_records_that_name_them(store, shipper):
    sha = f"{1:064d}"
    (shipper.images / sha).write_bytes(b"pixels")
    shipper.spools[table.SCORES].append([record(1, image_uri=image_key(sha))])
    assert shipper.ship()
    assert store.get(image_key(sha)) == b"pixels"
    assert not (shipper.images / sha).exists()


def days(store, count=3):
    for day in range(1, count + 1):
        for part in range(4):
            rows = [record(10 * day + part, day=f"2026-01-0{day}")]
            table.write(store, table.SCORES, f"segment-{day}-{part}", rows)


def test_compaction_joins_old_days_only(store):
    days(store)
    before = stored(store)
    assert keeping.compact(store, table.SCORES, "line-1", datetime(2026, 1, 3, tzinfo=UTC)) == 8
    counts = [len(list(store.keys(f"scores/source=line-1/day=2026-01-0{day}/"))) for day in (1, 2, 3)]
    assert counts == [1, 1, 4]
    assert stored(store) == before


def test_compaction_twice_and_late_segments_change_nothing(store):
    days(store, 1)
    before, at = stored(store), datetime(2026, 1, 9, tzinfo=UTC)
    keeping.compact(store, table.SCORES, "line-1", at)
    assert keeping.compact(store, table.SCORES, "line-1", at) == 0
    table.write(store, table.SCORES, "segment-1-0", [record(10, day="2026-01-01")])  # shipped again after a crash
    assert stored(store) == before
    table.write(store, table.SCORES, "late", [record(59, day="2026-01-01")])
    keeping.compact(store, table.SCORES, "line-1", at)
    assert stored(store) == [*before, "000059"]
    assert len(list(store.keys("scores/"))) == 1


def test_a_crash_in_the_middle_of_compaction_duplicates_nothing(store, monkeypatch):
    days(store, 1)
    before, at = stored(store), datetime(2026, 1, 9, tzinfo=UTC)
    removed = []

    def crash(key):
        if removed:
            raise KeyboardInterrupt
        removed.append(key)
        LocalStore.delete(store, key)

    monkeypatch.setattr(store, "delete", crash)
    with pytest.raises(KeyboardInterrupt):
        keeping.compact(store, table.SCORES, "line-1", at)
    assert stored(store) == before
    monkeypatch.undo()
    keeping.compact(store, table.SCORES, "line-1", at)
    assert stored(store) == before


def test_reading_a_window_opens_only_its_partitions(store, monkeypatch):
    days(store)
    for day in range(1, 4):
        table.write(store, table.SCORES, "other", [record(900, "line-2", f"2026-01-0{day}")])
    opened = []
    get = store.get
    monkeypatch.setattr(store, "get", lambda key: opened.append(key) or get(key))
    rows = table.newest_first(store, table.SCORES, "line-1", since="2026-01-03T00:00:00+00:00")
    assert [r["record_id"] for r in rows] == ["000033", "000032", "000031", "000030"]
    assert opened
    assert all(key.startswith("scores/source=line-1/day=2026-01-03/") for key in opened)


def test_the_last_label_counts(store):
    def label(at, given):
        return {
            "record_id": "r",
            "source": "line-1",
            "image_id": "a",
            "sha256": "x",
            "labelled_at": at,
            "label": given,
            "reviewer": "",
        }

    table.write(store, table.LABELS, "a", [label("2026-01-02T00:00:00", "defect")])
    assert read_labels(store)["r"]["label"] == "defect"
    pending = [label("2026-01-03T00:00:00", "false_alarm")]
    assert read_labels(store, pending)["r"]["label"] == "false_alarm"


def test_labels_of_older_versions_are_read_and_survive_compaction(store, monkeypatch):
    """They called the column ``verdict``, in the object store and in spools."""
    old = {"record_id": "r", "source": "line-1", "image_id": "a", "sha256": "x", "reviewer": ""}
    names = ("record_id", "labelled_at", "source", "image_id", "sha256", "verdict", "reviewer")
    with monkeypatch.context() as before:
        before.setitem(table.COLUMNS, table.LABELS, names)
        before.setattr(table, "of_today", lambda row: row)
        for hour, given in enumerate(("defect", "false_alarm")):
            row = old | {"labelled_at": f"2026-01-02T0{hour}:00:00", "verdict": given}
            table.write(store, table.LABELS, str(hour), [row])
    assert read_labels(store)["r"]["label"] == "false_alarm"
    assert keeping.compact(store, table.LABELS, "line-1", datetime(2026, 1, 3, tzinfo=UTC)) == 2
    assert read_labels(store)["r"]["label"] == "false_alarm"
    spooled = old | {"labelled_at": "2026-01-03T00:00:00", "verdict": "withdrawn"}
    assert read_labels(store, [spooled])["r"]["label"] == "withdrawn"


@pytest.mark.parametrize("poison", [{"score": "much"}, {"source": "a/b"}, {"source": ""}, {"embedding": 3}], ids=str)
def test_a_record_that_no_table_can_hold_is_kept_aside_and_stops_nothing(store, shipper, poison):
    spool = shipper.spools[table.SCORES]
    spool.append([record(1), record(2) | poison, record(3)])
    spool.close()
    spool.append([record(4)])
    assert shipper.ship()
    assert stored(store) == ["000001", "000003", "000004"]
    (kept,) = spool.folder.glob("*.bad")
    assert [r["record_id"] for r in read_segment(kept)] == ["000001", "000002", "000003"]
    assert spool.pending() == []


@pytest.mark.parametrize("line", [b"3\n", b"null\n", b"{}\n"])
def test_a_line_that_is_no_record_stops_nothing(store, shipper, line):
    spool = shipper.spools[table.SCORES]
    (spool.folder / "a.jsonl").write_bytes(line + json.dumps(record(1)).encode() + b"\n")
    spool.append([record(2)])
    assert shipper.ship()
    assert stored(store) == ["000001", "000002"]
    assert (spool.folder / "a.bad").read_bytes().startswith(line)


def test_a_segment_that_cannot_be_read_waits_alone(store, shipper, monkeypatch):
    spool = shipper.spools[table.SCORES]
    (spool.folder / "a.jsonl").write_bytes(json.dumps(record(1)).encode() + b"\n")
    spool.append([record(2)])
    real = Path.read_bytes

    def read(path):
        if path.name == "a.jsonl":
            raise PermissionError("not yours")
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", read)
        assert not shipper.ship()
        assert stored(store) == ["000002"]
    assert shipper.ship()
    assert stored(store) == ["000001", "000002"]


def test_the_shipper_lives_on_after_any_error(store, shipper, monkeypatch):
    shipper.every = 0.01
    monkeypatch.setattr(shipper, "_ship", lambda: 1 / 0)
    shipper.start()
    time.sleep(0.1)
    monkeypatch.undo()
    shipper.spools[table.SCORES].append([record(1)])
    for _ in range(200):
        if table.sources(store):
            break
        time.sleep(0.01)
    shipper.stop()
    assert stored(store) == ["000001"]


def test_what_systems_leave_in_the_score_log_is_no_record(store):
    table.write(store, table.SCORES, "a", [record(1)])
    folder = "scores/source=line-1/day=2026-01-02"
    for key in (f"{folder}/.DS_Store", f"{folder}/._a.parquet", f"{folder}/note.txt", "scores/@eaDir/x", "scores/x/y"):
        store.put(key, b"no table")
    store.put("scores/source=line-1/.hidden/x", b"")
    assert table.sources(store) == ["line-1"]
    assert stored(store) == ["000001"]
