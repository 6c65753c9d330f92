"""Batch scoring: every file of the inbox exactly once, whatever dies in between."""

import contextlib
import io
import json
from datetime import UTC, datetime

import numpy as np
import pytest
from PIL import Image

from components.scoring import table
from components.scoring.bundle import Bundle
from components.scoring.inbox import Processed, process
from components.scoring.shipper import image_key
from components.storage import LocalStore, open_store
from tests.conftest import tile

AT = datetime(2026, 1, 2, tzinfo=UTC)
LATER = datetime(2026, 1, 3, tzinfo=UTC)


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
        ("line-1", "0.png"), ("line-1", "1.png"), ("line-1", "2.png"), ("line-2", "3.png")]  # fmt: skip
    assert {r["scored_at"] for r in found} == {AT.isoformat()}
    assert all(store.exists(image_key(r["sha256"])) for r in found)
    assert list(store.keys("inbox")) == []
    assert process(store, opened, LATER) == Processed(0, {})


def test_bad_files_are_kept_aside_with_the_reason(store, opened):
    store.put("inbox/line-1/good.png", png(0))
    store.put("inbox/line-1/bad.png", png(0)[:100])
    store.put("inbox/nowhere.png", png(1))
    done = process(store, opened, AT)
    assert (done.scored, sorted(done.quarantined)) == (1, ["inbox/line-1/bad.png", "inbox/nowhere.png"])
    kept = [k for k in store.keys("quarantine/") if not k.endswith(".json")]
    assert [k.split("/", 2)[2] for k in kept] == ["line-1/bad.png", "nowhere.png"]
    reason = json.loads(store.get(f"{kept[0]}.reason.json"))
    assert "cannot be decoded" in reason["reason"]
    assert store.get(kept[0]) == png(0)[:100]


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


@pytest.mark.parametrize("at", range(0, 15, 2))
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
    expected = opened.score(np.ascontiguousarray(tile(5).transpose(2, 0, 1))[None].astype(np.float32) / 255)[0][0]
    assert records(store)[0]["score"] == pytest.approx(float(expected), rel=1e-6)
