"""An ensemble takes what the trainings of its members left, where that is what a look at the pictures would give."""

import numpy as np
import pandas as pd
import pytest

from components.calibration.calibrate import calibrate
from components.calibration.settings import CalibrationSettings
from components.core.artefacts import read_json, write_json
from components.core.records import NUISANCE
from components.decision.calibration import Calibration
from components.pictures.decoding import DEFAULT, Decoding
from components.training import combine as room
from components.training import train as training
from components.training.combine import Made, combine, scales_of
from components.training.descriptors import FILE, descriptors_of
from components.training.model import load_model, score_files
from components.training.settings import TrainSettings
from tests.given import TorchStore, parted_tiles, trained_tiny


@pytest.fixture
def data(tmp_path_factory):
    return parted_tiles(tmp_path_factory.mktemp("data"), 9, 10)


@pytest.fixture
def member(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "FeatureStore", lambda *_: TorchStore(tmp_path / "store"))

    def make(detector):
        model, out = trained_tiny(data, tmp_path / detector / "model", detector, "none"), tmp_path / detector / "made"
        return Made(model, calibrate(model, data / "split", data, out, CalibrationSettings(alpha=0.2)))

    return make


def combined(members, data, out):
    return combine(members, data / "split", data / "synthetic", data, out, TrainSettings("tiny", store=None), 0)


def of_another_seed(members):
    for made in members:
        record = read_json(made.model / "run.json")
        write_json(made.model / "run.json", {**record, "seed": 1})


def test_the_mean_of_what_the_members_left_is_what_scoring_says(data, member, tmp_path):
    members = [member("patchcore"), member("padim")]
    put = combined(members, data, tmp_path / "put")
    of_another_seed(members)
    scored = combined(members, data, tmp_path / "scored")
    ours, theirs = (pd.read_parquet(at / "check.parquet") for at in (put, scored))
    assert ours["kind"].str.startswith(NUISANCE).any()
    pd.testing.assert_frame_equal(ours.drop(columns="score"), theirs.drop(columns="score"))
    np.testing.assert_allclose(ours["score"], theirs["score"], rtol=5e-3, atol=5e-2)
    judged = [read_json(at / "history.json")[0]["synthetic_auroc"] for at in (put, scored)]
    assert judged[0] == pytest.approx(judged[1], abs=0.02)
    assert read_json(put / "check.json").keys() == read_json(scored / "check.json").keys()


def test_no_picture_is_scored_once_more(data, member, tmp_path, monkeypatch):
    members = [member("patchcore"), member("padim")]
    monkeypatch.setattr(room, "SyntheticAUROC", None)
    monkeypatch.setattr(room, "with_nuisances", None)
    left = np.load(combined(members, data, tmp_path / "put") / FILE)
    parts = [np.load(made.model / FILE) for made in members]
    np.testing.assert_array_equal(left, np.concatenate(parts, axis=1))
    paths = [data / name for name in training.normal_rows(data / "split", "fit")["image_id"]]
    (tmp_path / "put" / FILE).unlink()
    told = descriptors_of(tmp_path / "put", load_model(tmp_path / "put"), paths, DEFAULT)
    np.testing.assert_allclose(left, told, rtol=2e-3, atol=2e-3)


def test_a_member_of_pixels_leaves_the_description_to_the_graph(data, member, tmp_path):
    members = [member("patchcore"), member("pmb_ae")]
    put = combined(members, data, tmp_path / "put")
    assert not (put / FILE).exists()


def test_pictures_in_squares_are_scored(data, member, tmp_path):
    """The worst square of the mean is not the mean of the worst squares."""
    write_json(data / "split" / "decoding.json", Decoding(tiles=2).kept)
    members = [member("patchcore"), member("padim")]
    put = combined(members, data, tmp_path / "put")
    told = pd.read_parquet(put / "check.parquet")
    paths = [data / name for name in told[told["kind"] == "normal"]["image_id"]]
    scores = np.concatenate([s for s, _ in score_files(load_model(put), paths, rules=Decoding(tiles=2))])
    np.testing.assert_allclose(told[told["kind"] == "normal"]["score"], scores, rtol=5e-3, atol=5e-2)
    tables = [pd.read_parquet(made.model / "check.parquet")["score"].to_numpy() for made in members]
    scales = [scales_of(Calibration.read(made.calibration / "calibration.json"), "").image for made in members]
    mean = np.mean([(t - s.centre) / s.spread for t, s in zip(tables, scales, strict=True)], axis=0)
    assert np.abs(mean[: len(scores)] - scores).max() > 0.1
