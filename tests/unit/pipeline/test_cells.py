"""A cell made by a worker: from the store alone, once, from where a killed run left it, and told where it fails."""

import json
import shutil
import time
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import yaml

from components.core.artefacts import file_hash
from components.core.errors import DataError, StageError, StorageError
from components.pipeline import cells
from components.pipeline.cells import Cell, announce, at, collect, result_of, work
from components.pipeline.leases import Owner, read_lease
from components.pipeline.params import load_params
from components.pipeline.stages import Stages
from components.storage import LocalStore

VALUES = {"data": {"tiles": {"adapter": "folder", "name": "tiles"}}, "views": {"line": {"data": "tiles"}}}


class Killed(BaseException):
    """The end of a process, as far as a test in this process can see it."""


@pytest.fixture
def cell(tmp_path):
    """A view that is split, in a project of its own."""
    (tmp_path / "data/tiles").mkdir(parents=True)
    (tmp_path / "data/tiles/a.png").write_bytes(b"a picture")
    artefacts = tmp_path / "artefacts"
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(VALUES | {"artefacts": str(artefacts)}))
    for name in ("split", "synthetic"):
        (artefacts / "line" / name).mkdir(parents=True)
        (artefacts / "line" / name / "told").write_text(name)
    row = {"image_id": "a.png", "sha256": file_hash(tmp_path / "data/tiles/a.png"), "split": "fit", "label": "normal"}
    pd.DataFrame([row]).to_parquet(artefacts / "line/split/split.parquet")
    return Cell(Stages(load_params(file), "line", tmp_path / "data"), "patchcore", file)


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


@pytest.fixture
def made(monkeypatch):
    """Stages that only write a file; returns what was asked, and lets a test change what training does."""
    asked, how = [], {}

    def train(stage, view, detector, file, data, seconds):
        folder = Stages(load_params(file), view, data).of(detector)
        assert seconds > 0
        asked.append((stage, folder, (folder.parent / "split/told").read_text()))
        how.get("train", lambda _: None)(folder)
        (folder / "model").mkdir()
        (folder / "model/weights").write_text("the same bytes")

    monkeypatch.setattr(cells, "run_stage", train)
    monkeypatch.setattr(Stages, "folds", 0)
    monkeypatch.setattr(Stages, "can_evaluate", lambda _: False)
    monkeypatch.setattr(Stages, "calibrate", lambda *_: asked.append("calibrate"))
    monkeypatch.setattr(Stages, "export", lambda *_: asked.append("export"))
    return asked, how


@contextmanager
def slot():
    yield


def run(store, key, name="one", attempt=1, lapse=0.3):
    return work(store, key, Owner(name, attempt), lapse, slot, lambda: None)


def test_what_a_worker_makes_comes_home_by_hashes(cell, store, made):
    key = announce(cell, store)
    tree = run(store, key)
    assert tree == result_of(store, key)
    assert (collect(cell, store, tree) / "model/weights").read_text() == "the same bytes"
    (trained, *rest), _ = made
    assert trained[0] == "train"
    assert trained[2] == "split"
    assert not trained[1].is_relative_to(cell.stages.folder)  # in a folder of the run's own, which is gone
    assert not trained[1].exists()
    assert rest == ["calibrate", "export"]
    assert not list(store.keys(f"{at(key)}/state"))


def test_a_cell_is_made_once(cell, store, made):
    key = announce(cell, store)
    assert run(store, key) == run(store, key, "two", 2)
    assert len(made[0]) == 3


def test_the_key_is_of_all_that_the_result_depends_on_and_of_nothing_else(cell, tmp_path):
    before = cell.key()
    (cell.stages.folder / "split/timing.json").write_text("{}")
    assert cell.key() == before
    (cell.stages.folder / "synthetic/told").write_text("other")
    other = cell.key()
    assert other != before
    cell.file.write_text(yaml.safe_dump(VALUES | {"artefacts": str(tmp_path / "artefacts"), "seed": 5}))
    assert cell.key() not in (before, other)


def test_a_run_goes_on_with_what_a_killed_one_left(cell, store, made):
    key, (asked, how) = announce(cell, store), made

    def killed(folder):
        (folder / ".model.checkpoint").mkdir()
        (folder / ".model.checkpoint/state").write_text("step 7")
        until_kept(store, key)
        raise Killed

    how["train"] = killed
    with pytest.raises(Killed):
        run(store, key)
    seen = []
    how["train"] = lambda folder: seen.append((folder / ".model.checkpoint/state").read_text())
    run(store, key, "two", 2)
    assert seen == ["step 7"]
    assert asked[0][1] != asked[1][1]  # in another folder, as on another machine
    assert read_lease(store, at(key))["attempt"] == 2


def until_kept(store, key):
    until = time.monotonic() + 30
    while not (store.exists(f"{at(key)}/state.json") and b"checkpoint" in store.get(f"{at(key)}/state.json")):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_stages_that_are_done_are_not_done_again(cell, store, made, monkeypatch):
    key, (asked, _) = announce(cell, store), made

    def killed(*_):
        until_done(store, key)
        raise Killed

    monkeypatch.setattr(Stages, "calibrate", killed)
    with pytest.raises(Killed):
        run(store, key)
    monkeypatch.setattr(Stages, "calibrate", lambda *_: asked.append("calibrate"))
    collect(cell, store, run(store, key, "two", 2))
    assert [one if isinstance(one, str) else one[0] for one in asked] == ["train", "calibrate", "export"]
    assert (cell.folder / "model/weights").exists()


def until_done(store, key):
    until = time.monotonic() + 30
    while not (
        store.exists(f"{at(key)}/state.json") and json.loads(store.get(f"{at(key)}/state.json"))["done"] == ["train"]
    ):
        assert time.monotonic() < until
        time.sleep(0.02)


def test_the_log_of_a_failed_run_is_in_the_store(cell, store, made):
    key = announce(cell, store)

    def fails(_):
        cells.log.warning("the last words")
        raise StageError("train of patchcore on line: no memory")

    made[1]["train"] = fails
    with pytest.raises(StageError, match="no memory"):
        run(store, key)
    said = store.get(f"{at(key)}/one.log").decode()
    assert "the last words" in said
    assert "StageError: train of patchcore on line: no memory" in said


def test_other_pictures_are_refused(cell, store, made):
    key = announce(cell, store)
    (cell.stages.data / "a.png").write_bytes(b"another picture")
    with pytest.raises(DataError, match=r"a\.png: is not the picture that the split names"):
        run(store, key)
    assert made[0] == []


@pytest.mark.parametrize(("what", "said"), [("code_hash", "another version of Loupe"), ("versions", "of torch")])
def test_another_program_is_refused(cell, store, made, monkeypatch, what, said):
    key = announce(cell, store)
    other = {"code_hash": "other", "versions": cells.versions() | {"torch": "0"}}
    monkeypatch.setattr(cells, what, lambda: other[what])
    with pytest.raises(StageError, match=said):
        run(store, key)
    assert made[0] == []


def test_a_store_that_is_away_for_a_moment_ends_no_run(cell, store, made, monkeypatch):
    key, away, get = announce(cell, store), [2], store.get

    def sometimes(name):
        if name.endswith("asked.json") and away[0]:
            away[0] -= 1
            raise StorageError("is away")
        return get(name)

    monkeypatch.setattr(store, "get", sometimes)
    monkeypatch.setattr(cells, "PAUSES", (0.0, 0.0))
    assert run(store, key)
    assert len(made[0]) == 3


def test_folders_of_killed_runs_are_cleared_away(tmp_path, monkeypatch):
    monkeypatch.setattr(cells.tempfile, "gettempdir", lambda: str(tmp_path))
    left = tmp_path / "loupe-cell-abc-999999999"
    left.mkdir()
    with cells._scratch() as folder:
        assert not left.exists()
        assert Path(folder).parent == tmp_path
    assert not folder.exists()
    shutil.rmtree(tmp_path)
