"""An alpha by which nothing can be decided is one sentence before any work, whichever way it comes in."""

import json
import math

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from components.calibration.calibrate import summary
from components.calibration.settings import CalibrationSettings, CascadeSettings
from components.cli import app
from components.core.errors import CalibrationError, LoupeError, SettingsError
from components.decision.calibration import Calibration
from components.decision.conformal import beyond, threshold
from components.pipeline.params import load_params
from components.pipeline.stages import main as stage

BAD = ["5", "0", "1", "-0.1", "nan", "inf", "1e-320"]
SENTENCE = r"calibration\.alpha is .*; give (a number between 0 and 1|at least 1e-06)"


def refused(tmp_path, *arguments):
    (tmp_path / "photos").mkdir()
    result = CliRunner().invoke(app, ["fit", "patchcore", "--data", str(tmp_path / "photos"), *arguments])
    assert isinstance(result.exception, SettingsError)
    assert not (tmp_path / "run").exists()
    return str(result.exception)


@pytest.mark.parametrize("alpha", BAD)
def test_fit_refuses_it_as_an_option_as_a_setting_and_in_a_file(alpha, tmp_path):
    file = tmp_path / "knobs.yaml"
    file.write_text(yaml.safe_dump({"calibration": {"alpha": float(alpha)}}))
    ways = [["--alpha", alpha], ["--set", f"calibration.alpha={yaml.safe_dump(float(alpha)).split()[0]}"]]
    for number, way in enumerate([*ways, ["--params", str(file)]]):
        (tmp_path / str(number)).mkdir()
        said = refused(tmp_path / str(number), "--out", str(tmp_path / str(number) / "run"), *way)
        assert "calibration.alpha is" in said
        assert "\n" not in said


@pytest.mark.parametrize("alpha", BAD)
def test_params_refuse_it_for_flows_stages_retraining_and_benchmarks(alpha, tmp_path, monkeypatch):
    """All four read params.yaml by ``load_params``; the stage ends with a sentence."""
    file = tmp_path / "params.yaml"
    with open("params.yaml") as stream:  # noqa: PTH123
        known = yaml.safe_load(stream)
    file.write_text(yaml.safe_dump(known | {"calibration": {"alpha": float(alpha)}}))
    with pytest.raises(SettingsError, match=SENTENCE):
        load_params(file)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        stage(["train", "elpv-mono", "patchcore"])
    assert [p.name for p in tmp_path.iterdir()] == ["params.yaml"]


@pytest.mark.parametrize(
    "change", [{"alpha": 5}, {"alpha": 0}, {"alpha": math.nan}, {"threshold": math.nan}, {"scores": []}]
)
def test_the_line_refuses_a_record_that_decides_nothing(change, tmp_path):
    """The service, `loupe score` and the inbox read it so; JSON takes NaN."""
    file = tmp_path / "calibration.json"
    file.write_text(json.dumps({**summary(np.arange(40.0), CalibrationSettings()), **change}))
    with pytest.raises(CalibrationError, match="nothing can be decided"):
        Calibration.read(file)


@pytest.mark.parametrize(("n", "alpha"), [(10, 0.05), (10, 0.99999999999), (0, 0.5), (10, 5.0), (10, math.nan)])
def test_a_quantile_that_does_not_exist_is_an_error_and_no_index(n, alpha):
    with pytest.raises(LoupeError, match="alpha is"):
        threshold(np.arange(float(n)), alpha)
    assert beyond(19, 0.05) == 1


@pytest.mark.parametrize("slip", [{"normal": math.nan}, {"share": math.nan}, {"missed": -1.0}])
def test_limits_of_the_cascade_are_told_when_they_are_given(slip):
    with pytest.raises(SettingsError, match=r"export\.cascade"):
        CascadeSettings(**slip)


@pytest.mark.slow
def test_an_alpha_beyond_the_exits_of_an_edge_graph_is_told_before_training(tmp_path):
    (tmp_path / "photos").mkdir()
    asked = ["fit", "fmr_net", "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "run"), "--alpha", "0.6"]
    result = CliRunner().invoke(app, asked)
    assert isinstance(result.exception, SettingsError)
    assert "give more than alpha" in str(result.exception)
    assert not (tmp_path / "run").exists()
