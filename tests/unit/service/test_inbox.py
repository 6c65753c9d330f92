"""Batch scoring: every file of the inbox exactly once, whatever dies in between."""

import contextlib
import hashlib
import io
import itertools
import json
import os
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from PIL import Image

from components.core.errors import BundleError, StorageError
from components.decision.bundle import Bundle
from components.scorelog import table
from components.scorelog.shipper import image_key
from components.service import inbox
from components.service.attempts import MARK, WAITING
from components.service.inbox import Processed, until_empty
from components.service.settings import InboxSettings
from components.storage import LocalStore, open_store
from tests.conftest import tile

AT = datetime(2026, 1, 2, tzinfo=UTC)
LATER = datetime(2026, 1, 3, tzinfo=UTC)
process = partial(inbox.process, settings=InboxSettings(settle_seconds=0))
SLOW = InboxSettings(settle_seconds=0.5)


def png(seed):
    stream = io.BytesIO()
    Image.fromarray(tile(seed)).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def opened(bundle):
    return Bundle.open(bundle)


@pytest.fixture(params=["folder", "s3"])
def store(request, tmp_path):
    return open_store(str(tmp_path / "store") if request.param == "folder" else request.getfixturevalue("s3"))


def fill(store):
    for i in range(3):
        store.put(f"inbox/line-1/{i}.png", png(i))
    store.put("inbox/line-2/3.png", png(3))


def records(store):
    return [r for s in table.sources(store) for r in table.newest_first(store, table.SCORES, s)]


def test_every_file_is_scored_once_and_leaves(store, opened):
    fill(store)
    assert process(store, opened, AT).scored == 4
    found = records(store)
    assert sorted((r["source"], r["image_id"]) for r in found) == [
        ("line-1", "0.png"),
        ("line-1", "1.png"),
        ("line-1", "2.png"),
        ("line-2", "3.png"),
    ]
    assert {r["scored_at"] for r in found} == {AT.isoformat()}
    assert all(store.exists(image_key(r["sha256"])) for r in found)
    assert list(store.keys("inbox")) == []
    assert process(store, opened, LATER) == Processed(0, {})


def test_a_bad_file_is_tried_by_three_runs_and_then_kept_aside_with_the_reason(store, opened):
    store.put("inbox/line-1/good.png", png(0))
    store.put("inbox/line-1/bad.png", png(0)[:100])
    first = process(store, opened, AT)
    assert (first.scored, list(first.failed), first.quarantined, first.waiting) == (1, ["inbox/line-1/bad.png"], {}, 1)
    assert process(store, opened, LATER).waiting == 1
    assert list(process(store, opened, LATER).quarantined) == ["inbox/line-1/bad.png"]
    kept = [k for k in store.keys("quarantine/") if not k.endswith(".json")]
    assert [k.split("/", 2)[2] for k in kept] == ["line-1/bad.png"]
    reason = json.loads(store.get(f"{kept[0]}.reason.json"))
    assert "cannot be decoded" in reason["reason"]
    assert (reason["type"], reason["attempts"]) == ("DataError", 3)
    assert store.get(kept[0]) == png(0)[:100]
    assert list(store.keys("inbox/")) == []
    assert json.loads(store.get(WAITING)) == {}


def test_new_content_counts_from_zero(store, opened):
    for content in (b"half", b"half", b"other half"):
        store.put("inbox/line-1/a.png", content)
        assert process(store, opened, AT).waiting == 1
    store.put("inbox/line-1/a.png", png(0))
    assert process(store, opened, LATER).scored == 1


def test_files_that_wait_are_not_in_the_way_of_the_limit(store, opened):
    for i in range(3):
        store.put(f"inbox/line-1/a-{i}.png", b"poison")
        store.put(f"inbox/line-1/b-{i}.png", png(i))
        store.put(f"inbox/.c-{i}.png", png(i))
    calls = []

    def step(skip):
        calls.append(skip)
        return process(store, opened, AT, limit=2, skip=skip)

    done = until_empty(step)
    assert (done.scored, len(done.failed), done.quarantined, done.waiting) == (3, 3, {}, 3)
    assert len(calls) < 6
    assert {value["attempts"] for value in json.loads(store.get(WAITING)).values()} == {1}


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), MemoryError(), RecursionError("deep"), KeyError("exif")], ids=repr
)
def test_whatever_a_picture_raises_the_others_are_scored(tmp_path, opened, monkeypatch, error):
    store, real = LocalStore(tmp_path), inbox.record
    fill(store)

    def record(bundle, content, name, source):
        if name == "1.png":
            raise error
        return real(bundle, content, name, source)

    monkeypatch.setattr(inbox, "record", record)
    done = process(store, opened, AT)
    assert (done.scored, list(done.failed)) == (3, ["inbox/line-1/1.png"])
    assert type(error).__name__ in done.failed["inbox/line-1/1.png"]
    monkeypatch.undo()
    assert process(store, opened, LATER).scored == 1


def test_a_model_that_scores_nothing_puts_no_file_in_quarantine(tmp_path, opened, monkeypatch):
    store = LocalStore(tmp_path)
    fill(store)
    with monkeypatch.context() as patch:
        patch.setattr(Bundle, "score", lambda *_: 1 / 0)
        for _ in range(4):
            with pytest.raises(BundleError, match="the inbox waits"):
                process(store, opened, AT)
    assert process(store, opened, LATER).scored == 4


def test_a_store_that_fails_ends_the_run_and_blames_no_file(tmp_path, opened, monkeypatch):
    store = LocalStore(tmp_path)
    fill(store)

    def away(*_):
        raise StorageError("away")

    for _ in range(4):
        with monkeypatch.context() as patch:
            patch.setattr(store, "put_new", away)
            with pytest.raises(StorageError):
                process(store, opened, AT)
    assert process(store, opened, LATER).scored == 4
    assert not store.exists(WAITING)


def test_a_picture_that_kills_the_process_is_found_and_given_up(tmp_path, opened, monkeypatch):
    store, real = LocalStore(tmp_path), inbox.record
    fill(store)

    def record(bundle, content, name, source):
        if name == "1.png":
            os._exit(9)
        return real(bundle, content, name, source)

    monkeypatch.setattr(inbox, "record", record)
    ends = []
    while list(store.keys("inbox/")) and len(ends) < 12:
        pid = os.fork()
        if not pid:
            process(store, opened, AT)
            os._exit(0)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    assert len(records(store)) == 3
    (reason,) = [json.loads(store.get(k)) for k in store.keys("quarantine/") if k.endswith(".json")]
    assert (reason["type"], reason["attempts"], reason["file"]) == ("ProcessEnded", 3, "inbox/line-1/1.png")
    assert not store.exists(MARK)


def test_a_file_that_is_being_written_is_scored_when_it_is_whole(tmp_path, opened):
    store, full = LocalStore(tmp_path), png(3)
    store.put("inbox/line-1/done.png", png(1))
    with (tmp_path / "inbox/line-1/slow.png").open("wb") as camera:
        camera.write(full[:500])
        camera.flush()
        for _ in range(4):
            done = inbox.process(store, opened, AT, settings=SLOW)
            assert (done.failed, done.quarantined, done.waiting) == ({}, {}, 1)
        camera.write(full[500:])
    assert inbox.process(store, opened, LATER, settings=SLOW).scored == 1
    assert sorted(r["image_id"] for r in records(store)) == ["done.png", "slow.png"]


def test_a_writer_on_another_machine_shows_by_its_changes(tmp_path, opened, monkeypatch):
    store = LocalStore(tmp_path)
    store.put("inbox/line-1/slow.png", png(3)[:500])
    path = tmp_path / "inbox/line-1/slow.png"

    def sleep(_):
        path.write_bytes(path.read_bytes() + b"more")

    monkeypatch.setattr(time, "sleep", sleep)
    done = inbox.process(store, opened, AT, settings=SLOW)
    assert (done.scored, done.failed, done.waiting) == (0, {}, 1)


def test_a_clock_in_the_future_starves_no_file(tmp_path, opened):
    store = LocalStore(tmp_path)
    store.put("inbox/line-1/a.png", png(3))
    os.utime(tmp_path / "inbox/line-1/a.png", (4e9, 4e9))
    assert inbox.process(store, opened, AT, settings=SLOW).scored == 1


def test_no_run_waits_when_enough_files_are_settled(tmp_path, opened, monkeypatch):
    store = LocalStore(tmp_path)
    fill(store)
    time.sleep(SLOW.settle_seconds + 0.1)
    store.put("inbox/line-3/young.png", png(4))
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("waited"))
    assert inbox.process(store, opened, AT, limit=4, settings=SLOW).scored == 4


def test_what_cannot_be_read_stays_and_stops_nothing(tmp_path, opened, monkeypatch):
    store = LocalStore(tmp_path)
    fill(store)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "1.png" and real(path, mode))
    done = process(store, opened, AT, limit=2)
    assert (done.scored, done.quarantined) == (2, {})
    assert (process(store, opened, AT).scored, process(store, opened, AT).waiting) == (1, 1)
    assert list(store.keys("inbox/")) == ["inbox/line-1/1.png"]


def test_the_same_picture_under_two_names_is_two_records(store, opened):
    store.put("inbox/line-1/a.png", png(0))
    store.put("inbox/line-1/b.png", png(0))
    assert process(store, opened, AT).scored == 2
    assert len({r["record_id"] for r in records(store)}) == 2


class Dies(LocalStore):
    """A store whose process dies at one call."""

    def __init__(self, root, at):
        super().__init__(root)
        self.left = at

    def _count(self):
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt

    def put(self, key, data):
        self._count()
        super().put(key, data)

    def put_new(self, key, data):
        self._count()
        return super().put_new(key, data)

    def delete(self, key):
        self._count()
        super().delete(key)

    def remove_unchanged(self, key, sha256):
        self._count()
        return super().remove_unchanged(key, sha256)


@pytest.mark.parametrize("at", range(0, 16))
def test_a_run_that_died_anywhere_is_finished_by_the_next(tmp_path, opened, at):
    fill(LocalStore(tmp_path))
    with contextlib.suppress(KeyboardInterrupt):
        process(Dies(tmp_path, at), opened, AT)
    store = LocalStore(tmp_path)
    process(store, opened, LATER)
    process(store, opened, LATER)
    assert len(records(store)) == 4
    assert len({(r["source"], r["image_id"]) for r in records(store)}) == 4
    assert list(store.keys("inbox")) == []


STEPS = ("rename", "replace", "link", "unlink")


def dying(patch, after):
    """Every change of a name on the disk counts; the process dies before the step *after*, and stays dead."""
    left = [after]

    def counted(real):
        def step(*given, **named):
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            return real(*given, **named)

        return step

    for name in STEPS:
        patch.setattr(os, name, counted(getattr(os, name)))
    return left


def test_a_death_between_any_two_steps_loses_and_doubles_nothing(tmp_path, opened, monkeypatch):
    once = InboxSettings(0, attempts=1)
    for at in itertools.count():
        store = LocalStore(tmp_path / str(at))
        fill(store)
        store.put("inbox/line-1/bad.png", b"bad")
        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            left = dying(patch, at)
            inbox.process(store, opened, AT, settings=once)
        if at % 2:  # a camera uses the name again while the run is dead
            store.put("inbox/line-1/0.png", png(50))
        for _ in range(3):
            inbox.process(store, opened, LATER, settings=once)
        found = sorted((r["source"], r["image_id"], r["sha256"]) for r in records(store))
        names = [name for _, name, _ in found]
        assert names.count("0.png") in ((1, 2) if at % 2 else (1,))
        assert sorted(set(names)) == ["0.png", "1.png", "2.png", "3.png"]
        assert len(set(found)) == len(found) == len(names)
        newest = hashlib.sha256(png(50)).hexdigest()
        assert any(sha == newest for *_, sha in found) == bool(at % 2)
        assert all(store.exists(image_key(sha)) for *_, sha in found)
        assert len({store.get(k) for k in store.keys("quarantine/") if not k.endswith(".json")}) == 1
        assert not [p for p in (tmp_path / str(at) / "inbox").rglob("*") if p.is_file() and p.suffix != ".part"]
        if left[0] >= 0:
            break
    assert at > 20


def test_a_file_that_changes_after_the_plan_is_scored_as_it_is_at_last(tmp_path, opened):
    store, full = LocalStore(tmp_path), png(7)
    store.put("inbox/line-1/a.png", full[:200])
    with pytest.raises(KeyboardInterrupt):
        process(Dies(tmp_path, 1), opened, AT)  # the plan is written, then the process dies
    store.put("inbox/line-1/a.png", full)
    assert process(store, opened, LATER).scored == 0
    assert process(store, opened, LATER).scored == 1
    assert len(records(store)) == 1


def test_scores_are_those_of_the_bundle(tmp_path, opened):
    store = LocalStore(tmp_path)
    store.put("inbox/line-1/a.png", png(5))
    process(store, opened, AT)
    expected = opened.score([tile(5)])[0][0]
    assert records(store)[0]["score"] == pytest.approx(float(expected), rel=1e-6)
