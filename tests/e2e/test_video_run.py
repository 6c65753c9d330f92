"""Clips from the folder to the stream: fit, evaluate, bundle, files, runner and watch see the same windows."""

import json
import logging
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from components.core.errors import DataError, SettingsError
from components.decision.batch import score
from components.decision.bundle import Bundle
from components.pictures.decoding import Decoding
from components.pipeline.fit import EvaluateRequest, FitRequest, evaluate_run, fit_folder
from components.pipeline.params import Params
from components.pipeline.watching import watched
from components.scorelog import table
from components.scorelog.shipper import clip_key
from components.service.settings import ServiceSettings
from components.service.streams import Folder
from components.service.watch import Watch, WatchSettings
from components.storage import open_store
from components.training.train import require_clips
from tests.clips import write_set

SMALL = {"validation": {"min_train_normals": 10, "min_contrast": 0.0, "max_quarantined_share": 0.5}}


@pytest.fixture(scope="module")
def walk(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("set") / "walk"
    return write_set(root, train=(24, 24, 24), test=24, anomalous=tuple(range(12, 20)))


@pytest.fixture(scope="module")
def run(walk, tmp_path_factory) -> Path:
    request = FitRequest("stm_ae", walk, "clips", preset="tiny", overrides={"epochs": 12}, alpha=0.2, sections=SMALL)
    return fit_folder(request, tmp_path_factory.mktemp("runs") / "walk")


@pytest.mark.slow
def test_a_run_on_clips_is_whole_and_its_graph_agrees(run, walk, tmp_path):
    parity = json.loads((run / "bundle/parity.json").read_text())
    assert parity["score_error"] < 1e-3
    manifest = json.loads((run / "bundle/manifest.json").read_text())
    assert manifest["decoding"] == {"max_pixels": Decoding().max_pixels, "stride": 1, "white": None, "window": 3}
    told = json.loads((run / "model/check.json").read_text())
    assert "fast" in told["kinds"]
    evaluate_run(EvaluateRequest(run, walk), tmp_path / "evaluation")
    said = json.loads((tmp_path / "evaluation/metrics.json").read_text())
    metrics, frames = said["overall"], said["frames"]
    assert frames["auroc"] == pytest.approx(metrics["image"]["auroc"])
    assert (frames["frames"], frames["clips"], frames["macro_clips"]) == (24, 1, 1)
    assert metrics["n"] == {"normal": 16, "anomalous": 8}, "no frame is left out"
    assert metrics["image"]["auroc"] > 0.6
    assert metrics["pixel"]["images"] > 0


@pytest.mark.slow
def test_files_the_runner_and_a_stream_give_the_same_scores(run, walk, tmp_path):
    frames = walk / "testing/frames/01"
    scored = pd.read_parquet(score(run / "bundle", [frames], tmp_path / "scores.parquet"))
    by_name = dict(zip((Path(n).name for n in scored["image_id"]), scored["score"], strict=True))
    assert len(by_name) == 24
    shutil.copytree(run / "bundle", tmp_path / "bundle")
    picked = [str(frames / f"{i:03}.png") for i in (0, 1, 7, 23)]
    said = subprocess.run(
        [sys.executable, tmp_path / "bundle/runner.py", *picked], check=True, capture_output=True, text=True, cwd="/"
    )
    for line in map(json.loads, said.stdout.splitlines()):
        assert line["score"] == pytest.approx(by_name[Path(line["image"]).name], abs=1e-5)

    seen, bundle = {}, Bundle.open(run / "bundle")
    monkey = bundle.answer
    names = iter(sorted(by_name))

    def answer(pixels, *rest):
        found = monkey(pixels, *rest)
        seen[next(names)] = found.score
        return found

    bundle.answer = answer  # type: ignore[method-assign]
    counts = Watch(bundle, "watch-x", lambda _: None, WatchSettings()).run(
        Folder(frames, bundle.decoding.single, once=True), threading.Event()
    )
    assert counts.frames == 24
    assert seen == pytest.approx(by_name, abs=1e-6)


@pytest.mark.slow
def test_alarms_of_a_watched_folder_are_in_the_score_log_with_their_clip(run, walk, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    params = Params(
        data={}, views={}, store=str(tmp_path / "store"), service=ServiceSettings(spool=str(tmp_path / "spool"))
    )
    counts = watched(params, str(run / "bundle"), str(walk / "testing/frames/01"), "gate", True, None)
    assert counts.frames == 24
    assert counts.alarms >= counts.events > 0
    store = open_store(params.store)
    records = list(table.newest_first(store, table.SCORES, "watch-gate"))
    assert len(records) == counts.events
    for record in records:
        assert record["decision"] == "anomalous"
        assert store.get(record["image_uri"]).startswith(b"\x89PNG")
        clip = store.get(clip_key(record["sha256"]))
        assert clip[:4] == b"RIFF"
        assert clip[8:12] == b"WEBP"
    assert not list((tmp_path / "spool/images").iterdir()), "all is shipped"


@pytest.mark.slow
def test_one_picture_is_no_window(run):
    bundle = Bundle.open(run / "bundle")
    with pytest.raises(DataError, match="stm_ae looks at 3 frames of a clip together"):
        bundle.answer(np.zeros((48, 64, 3), np.uint8))
    assert bundle.answer(bundle.blank).map.shape == (64, 64)


def test_a_detector_of_clips_is_refused_pictures_before_anything_is_done(product, tmp_path):
    with pytest.raises(SettingsError, match="stm_ae looks at clips, and adapter folder gives single pictures"):
        fit_folder(FitRequest("stm_ae", product, preset="tiny"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_training_of_clips_is_refused_pictures_too(tmp_path):
    """Whoever calls the stage by itself, as DVC does."""
    with pytest.raises(SettingsError, match="stm_ae looks at clips, and these are single pictures"):
        require_clips("stm_ae", Decoding(), tmp_path)
    require_clips("stm_ae", Decoding(stride=1), tmp_path)
    require_clips("padim", Decoding(), tmp_path)


@pytest.mark.slow
def test_a_detector_of_pictures_sees_single_frames(walk, tmp_path, caplog):
    request = FitRequest("padim", walk, "clips", preset="tiny", alpha=0.1, sections=SMALL)
    with caplog.at_level(logging.INFO, "loupe"):
        out = fit_folder(request, tmp_path / "run")
    said = [record.getMessage() for record in caplog.records]
    warned = next(at for at, line in enumerate(said) if "lie in 1 clip, alike within each" in line)
    assert "for that 9 have to calibrate" in said[warned]
    assert warned < next(at for at, line in enumerate(said) if line.endswith(": train padim")), "before it is trained"
    assert json.loads((out / "calibration.json").read_text())["alike"] == {"of": "clips", "n": 1}
    assert "(pictures of 1 clip, alike within each)" in (out / "bundle/MODEL_CARD.md").read_text()
    assert "nominal: pictures of 1 clip" in (out / "report.html").read_text()
    manifest = json.loads((out / "bundle/manifest.json").read_text())
    assert manifest["decoding"]["stride"] == 1
    assert "window" not in manifest["decoding"]
    bundle = Bundle.open(out / "bundle")
    assert bundle.score([np.zeros((48, 64, 3), np.uint8)])[0].shape == (1,)
    with pytest.raises(DataError, match="padim looks at one picture at a time"):
        bundle.score([np.zeros((3, 48, 64, 3), np.uint8)])
