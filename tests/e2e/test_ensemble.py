"""``loupe ensemble``: finished runs as one run, which every command takes that takes one of ``loupe fit``."""

import shutil

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from components.cli import app
from components.core.artefacts import read_json, tree_hash, write_json
from components.core.errors import BundleError, CalibrationError, DataError, SettingsError
from components.decision.bundle import Bundle
from components.decision.calibration import Calibration
from components.pipeline.ensemble import EnsembleRequest, ensemble_runs
from components.registry.register import synthetic_score
from components.training.combine import Made, combine, scales_of
from components.training.model import load_model, score_files
from components.training.settings import TrainSettings


def loupe(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def members(patchcore, other_bundle):
    return patchcore, other_bundle.parent


@pytest.fixture(scope="module")
def run(members, product, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "both"
    before = [tree_hash(member) for member in members]
    loupe("ensemble", *members, "--data", product, "--out", out)
    assert [tree_hash(member) for member in members] == before  # they stay as they were
    return out


def test_it_is_calibrated_exported_and_recorded_as_a_whole(run, members):
    parity, bundle = read_json(run / "bundle" / "parity.json"), Bundle.open(run / "bundle")
    assert parity["decision_agreement"] == 1.0
    assert max(parity["score_error"], parity["map_error"]) < 1e-3
    assert bundle.manifest.detector == "ensemble"
    known = Calibration.read(run / "calibration.json")
    assert known.model == tree_hash(run / "model" / "model.safetensors")
    assert known.alpha == Calibration.read(members[0] / "calibration.json").alpha == 0.2
    record = read_json(run / "run.json")
    assert [member["model"] for member in record["members"]] == [
        tree_hash(member / "model" / "model.safetensors") for member in members
    ]
    assert "# PatchCore trained 2 times on product\n" in (run / "bundle" / "MODEL_CARD.md").read_text()


def test_members_share_the_network_and_stand_on_scales_of_calibrate_normals(run, members):
    made = load_model(run / "model")
    assert len(made.backbones) == 1
    assert (run / "bundle" / "model.onnx").stat().st_size < 1.5 * (members[0] / "bundle" / "model.onnx").stat().st_size
    for number, member in enumerate(members):
        expected = scales_of(Calibration.read(member / "calibration.json"), "")
        np.testing.assert_allclose(made.scales[number], np.array(expected), rtol=1e-6)


def test_it_can_be_evaluated_scored_and_chosen(run, members, product, tmp_path):
    loupe("evaluate", run, "--data", product)
    metrics = read_json(run / "evaluation" / "metrics.json")
    assert metrics["overall"]["image"]["auroc"] > 0.9
    loupe("score", run / "bundle", product / "test", "--out", tmp_path / "scores.parquet")
    scored = pd.read_parquet(tmp_path / "scores.parquet")
    assert set(scored["model"]) == {"ensemble"}
    assert 0.5 < synthetic_score(run) <= 1
    made, shown = (read_json(at / "model" / "check.json") for at in (run, members[0]))
    assert made.keys() == shown.keys()  # the evidence that a training leaves


def test_an_ensemble_is_a_member_with_one_voice(run, members, product, tmp_path):
    """Whatever it is made of: half of the mean is its, on its own scale."""
    out = tmp_path / "nested"
    loupe("ensemble", run, members[0], "--data", product, "--out", out)
    made, pictures = load_model(out / "model"), sorted((product / "test").rglob("*.png"))[::4]
    assert len(made.members) == 3
    assert len(made.backbones) == 1
    assert read_json(out / "bundle/parity.json")["decision_agreement"] == 1.0
    expected = []
    for member in (run, members[0]):
        scale = scales_of(Calibration.read(member / "calibration.json"), "").image
        found = np.concatenate([scores for scores, _ in score_files(load_model(member / "model"), pictures)])
        expected.append((found - scale.centre) / scale.spread)
    found = np.concatenate([scores for scores, _ in score_files(made, pictures)])
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=1e-3, atol=1e-3)


@pytest.fixture
def copied(members, tmp_path):
    return shutil.copytree(members[1], tmp_path / "copied")


def asked(product, out, *runs, **more):
    return ensemble_runs(EnsembleRequest(runs, product, **more), out)


def test_runs_that_make_no_ensemble_are_refused_before_the_work(members, copied, product, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(SettingsError, match="two or more different runs"):
        asked(product, out, members[0], members[0])
    with pytest.raises(SettingsError, match="two or more different runs"):
        asked(product, out, members[0])
    with pytest.raises(DataError, match="holds no finished run"):
        asked(product, out, members[0], product)
    with pytest.raises(SettingsError, match="is one of the runs to put together"):
        asked(product, copied, members[0], copied)
    with pytest.raises(DataError, match="is not a folder"):
        asked(product / "none", out, *members)
    (copied / "work/run/folds").mkdir()
    with pytest.raises(SettingsError, match=r"is calibrated by folds, .* needs calibration\.folds 0"):
        asked(product, out, members[0], copied)
    table = pd.read_parquet(copied / "split.parquet")
    table.iloc[:-1].to_parquet(copied / "split.parquet", index=False)
    with pytest.raises(DataError, match=r"learned other pictures than .*; fit both with the same"):
        asked(product, out, members[0], copied)
    shutil.rmtree(copied / "work")
    shutil.copy2(members[1] / "split.parquet", copied / "split.parquet")
    with pytest.raises(DataError, match=r"is gone; fit .* again"):
        asked(product, out, copied, members[0])
    assert not out.exists()


def test_other_pictures_are_refused(members, product, tmp_path):
    other = shutil.copytree(product, tmp_path / "product")
    for path in (other / "test/good").glob("*.png"):
        path.write_bytes((product / "train/good/000.png").read_bytes())
    with pytest.raises(DataError, match="holds other pictures"):
        asked(other, tmp_path / "out", *members)


def test_a_calibration_of_another_model_is_refused(members, copied, tmp_path):
    write_json(copied / "calibration.json", {**read_json(copied / "calibration.json"), "model": "0" * 64})
    below = members[0] / "work" / "run"
    both = [Made(run / "model", run) for run in (members[0], copied)]
    with pytest.raises(BundleError, match="is of another model"):
        combine(both, below / "split", below / "synthetic", tmp_path, tmp_path / "model", TrainSettings("tiny"), 0)


def calibrated(scores, quantiles=(1.0, 4.0, 5.0, 9.0)):
    values = {"scores": sorted(scores), "n": len(scores), "alpha": 0.2, "threshold": 1.0, "confidence": 0.9}
    scale = dict(zip(("0.5", "0.99", "0.999", "1.0"), quantiles, strict=True))
    return Calibration.of({**values, "false_alarm_interval": [0, 1], "map": scale})


def test_one_odd_picture_moves_no_scale():
    rng = np.random.default_rng(0)
    scores = rng.normal(10, 2, 2001)
    image, heat = scales_of(calibrated(scores), "x")
    assert image.centre == pytest.approx(10, abs=0.2)
    assert image.spread == pytest.approx(2, rel=0.1)
    assert heat == (1.0, 3.0)
    odd, _ = scales_of(calibrated([*scores, 1e6]), "x")
    assert odd == pytest.approx(image, rel=0.01)


def test_values_of_which_most_are_alike_have_the_next_wider_spread():
    image, heat = scales_of(calibrated([1.0] * 8 + [2.0, 3.0], (0.0, 0.0, 0.5, 1.0)), "x")
    assert image == (1.0, pytest.approx(np.std([1.0] * 8 + [2.0, 3.0])))
    assert heat == (0.0, 0.5)
    with pytest.raises(CalibrationError, match=r"x: gives every good picture the same values; leave it out"):
        scales_of(calibrated([1.0] * 9), "x")
