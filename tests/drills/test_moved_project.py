"""A project is copied, the first one is gone: the copy serves, scores, monitors, promotes and prepares a retraining."""

import io
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import yaml
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

from components.cli import app
from components.core.artefacts import read_json
from components.core.errors import BundleError, DataError, PlaceError, SettingsError
from components.datasets.versions import begin_repository
from components.decision.bundle import Manifest
from components.pipeline.monitoring import champion_bundle, judge_windows, watched_models
from components.pipeline.params import load_params
from components.pipeline.registering import FIRST, register_fitted
from components.pipeline.retraining import Retraining
from components.registry.mlflow import Registry
from components.registry.register import DATA_PIN
from components.scorelog import table
from components.service.champion import Champion
from components.service.recorder import Recorder
from components.service.routes import create_app
from components.storage import open_store
from infra.stack import Stack
from tests.conftest import tile

PARAMS = {
    "data": {},
    "views": {},
    "monitor": {"window": 20, "stride": 20, "min_n": 20, "settle_seconds": 0.0, "resamples": 50, "needed": 1},
    "retrain": {"min_candidates": 5},
    "train": {"preset": "tiny", "store": None},
}
MOVED = ("registry", "runs", "artefacts", "data", ".dvc", "params.yaml", "store", "spool", "monitoring")


def loupe(*words):
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def png(seed, moved=False):
    pixels, stream = tile(seed), io.BytesIO()
    Image.fromarray(pixels // 4 + 190 if moved else pixels).save(stream, "png")
    return stream.getvalue()


@pytest.fixture
def project(product, patchcore, tmp_path, monkeypatch):
    """A project with one run of ``loupe fit`` and the folder that it was given; the tests stand in it."""
    first = tmp_path / "first"
    shutil.copytree(patchcore, first / "runs/cells")
    shutil.copytree(product, first / "photos")
    (first / "params.yaml").write_text(yaml.safe_dump(PARAMS))
    monkeypatch.chdir(first)
    begin_repository()
    return first


def serve(name, contents, source="line-1"):
    """Answers of the service on *contents*, shipped; and the records that its review page shows."""
    params = load_params()
    champion = Champion(name, Registry(params.registry), Path(params.service.spool) / "models")
    recorder = Recorder(open_store(params.store), params.service, champion.concerns)
    with TestClient(create_app(champion, recorder, params.service)) as client:
        kind = {"Content-Type": "image/png"}
        answers = [client.post(f"/v1/score?source={source}", content=one, headers=kind) for one in contents]
        recorder.load()
        shown = client.get("/v1/records?limit=1000").json()["records"]
    assert [answer.status_code for answer in answers] == [200] * len(contents)
    return [answer.json()["results"][0] for answer in answers], shown


def test_a_copied_project_works_without_the_first_one(project, tmp_path, monkeypatch):
    said = loupe("register", "runs/cells", "cells", "--data", "photos")
    assert "version 1 is registered and champion" in said
    assert "version 2 is registered; `loupe promote cells 2" in loupe("register", "runs/cells", "cells")
    before, _ = serve("cells", [png(1)])
    second = tmp_path / "second"
    shutil.copytree(project, second, symlinks=True)
    monkeypatch.chdir(second)
    shutil.rmtree(project)

    after, _ = serve("cells", [png(1)])
    assert [a["score"] for a in after] == [b["score"] for b in before]
    serve("cells", [png(300 + i, moved=True) for i in range(20)])
    loupe("promote", "cells", "2", "--reason", "moved")
    assert Registry(load_params().registry).champion("cells") == "2"
    loupe("rollback", "cells")
    (verdict,) = judge_windows(load_params(), "cells", datetime.now(UTC) + timedelta(minutes=1))
    assert (verdict.action, verdict.model) == ("retrain", "cells")
    assert Path(verdict.evidence).exists()
    _prepares_a_retraining(verdict.id)
    assert _naming(second, project) == []


def _prepares_a_retraining(verdict):
    """The registered run's pictures come back from the pin, and the candidates join them."""
    params = load_params()
    job = Retraining.of(params, verdict)
    assert job.hindrance(datetime.now(UTC)) is None
    folder = job.folder / "candidates"
    folder.mkdir(parents=True)
    (folder / "new.png").write_bytes(png(900))
    row = {"file": "new.png", "sha256": "s", "source": "line-1", "review": "none", "part": "train"}
    pd.DataFrame([row]).to_parquet(folder / "candidates.parquet")
    shutil.rmtree("data/cells-live")  # as after another version: the pin of the champion brings it back
    Path("data/cells-live.dvc").unlink()
    job.write_version()
    names = {path.relative_to("data/cells-live").as_posix() for path in Path("data/cells-live").rglob("*.png")}
    assert "production/line-1/new.png" in names
    assert sum(name.startswith("train/good/") for name in names) == 40
    assert job.stages.data == Path("data/cells-live")


def _naming(folder, place):
    """Files that name a place."""
    files = [path for part in MOVED for path in [folder / part, *(folder / part).rglob("*")] if path.is_file()]
    assert len(files) > 50
    words = str(place).encode()
    return [path for path in files if words in path.read_bytes()]


@pytest.mark.usefixtures("project")
def test_records_of_one_model_are_not_shown_as_another_s():
    """One bundle under two names, in one store: each review page shows its own line."""
    for name in ("cells", "housings"):
        register_fitted(load_params(), Path("runs/cells"), name)
    serve("cells", [png(1), png(2)])
    _, shown = serve("housings", [png(3)], "line-2")
    assert [record["source"] for record in shown] == ["line-2"]
    _, shown = serve("cells", [])
    assert [record["source"] for record in shown] == ["line-1", "line-1"]
    assert sorted(watched_models(load_params())) == ["cells", "elpv-mono", "housings"]
    stored = table.newest_first(open_store("store"), table.SCORES, "line-2")
    assert [record["registered"] for record in stored] == ["housings"]


@pytest.mark.usefixtures("project")
def test_what_a_registered_run_is_registered_with():
    params = load_params()
    lines = register_fitted(params, Path("runs/cells/bundle"), "cells")
    assert "add the view cells" in lines[-1]
    registry = Registry(params.registry)
    assert registry.decisions("cells")[0].reasons == (FIRST,)
    assert registry.tags("cells", "1")["detector"] == "patchcore"
    assert DATA_PIN not in registry.tags("cells", "1")
    assert "synthetic_auroc" in registry.metrics("cells", "1")
    assert Manifest.read(champion_bundle(params, "cells")).version == Manifest.read(Path("runs/cells/bundle")).version
    assert not Path("data").exists()


def damaged(run):
    values = read_json(run / "bundle/calibration.json")
    (run / "bundle/calibration.json").write_text(json.dumps(values | {"alpha": 0.5}))


def other_picture(run):
    Image.fromarray(np.zeros((96, 96, 3), np.uint8)).save(run.parents[1] / "photos/train/good/000.png")


@pytest.mark.parametrize(
    ("change", "words", "error", "said"),
    [
        (None, ("runs", "cells"), DataError, "holds no finished run"),
        (None, ("photos", "cells"), DataError, "holds no finished run"),
        (None, ("runs/cells", "my cells"), SettingsError, "would name a folder and a model"),
        (None, ("runs/cells", "retrain"), SettingsError, "choose another"),
        (None, ("runs/cells", "cells", Path("nowhere")), SettingsError, "is not a folder"),
        (None, ("runs/cells", "cells", Path("runs")), DataError, "are missing or changed"),
        (other_picture, ("runs/cells", "cells", Path("photos")), DataError, "first train/good/000.png"),
        (damaged, ("runs/cells", "cells"), BundleError, "calibration.json"),
    ],
)
def test_what_cannot_be_registered_is_told_before_anything_is(project, change, words, error, said):
    if change:
        change(project / "runs/cells")
    with pytest.raises(error, match=said):
        register_fitted(load_params(), Path(words[0]), *words[1:])
    assert not Path("registry").exists()


def test_a_copy_of_a_running_stack_takes_no_process_of_the_first_one_for_its_own(tmp_path):
    """``make stack-down`` in the copy would have ended them."""
    first, second = tmp_path / "first", tmp_path / "second"
    own = psutil.Process()
    note = {"project": str(first), "pid": own.pid, "started": own.create_time(), "command": []}
    (first / ".stack").mkdir(parents=True)
    (first / ".stack/processes.json").write_text(json.dumps({"service": note}))
    shutil.copytree(first, second)
    assert Stack(first).alive(Stack(first).read()["service"])
    assert Stack(second).read() == {}


def test_a_run_that_is_being_written_is_not_registered(project):
    from components.core.artefacts import lock_of, locked

    with locked(lock_of(project / "runs/cells")), pytest.raises(PlaceError, match="wait for its end"):
        register_fitted(load_params(), Path("runs/cells"), "cells")
