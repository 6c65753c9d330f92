"""``loupe fit --size 48,64``: one member for each size, put together, calibrated and exported as one run like any."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from components.cli import app
from components.core.artefacts import read_json, tree_hash
from components.decision.bundle import Bundle
from components.decision.calibration import Calibration
from components.pipeline.ensemble import EnsembleRequest, ensemble_runs
from components.pipeline.stages import Stages
from components.training.model import load_model, score_files

pytestmark = pytest.mark.slow


def loupe(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def sized(product, tmp_path_factory):
    out = tmp_path_factory.mktemp("sizes") / "run"
    asked = ["--preset", "tiny", "--alpha", "0.2", "--size", "48,64"]
    done = loupe("fit", "patchcore", "--data", product, "--out", out, *asked)
    assert done.exit_code == 0, done.output
    return out


def test_the_run_looks_like_any(sized, patchcore):
    assert {path.name for path in patchcore.iterdir()} <= {path.name for path in sized.iterdir()}
    record = read_json(sized / "run.json")
    assert record["request"]["detector"] == "patchcore"
    asked = {"detectors": ["patchcore@48", "patchcore@64"], "why": "as asked for", "smallest_defect": 6.0}
    assert record["sizes"] == asked
    assert read_json(patchcore / "run.json")["sizes"]["detectors"] == ["patchcore"]
    assert Calibration.read(sized / "calibration.json").model == tree_hash(sized / "model/model.safetensors")
    assert read_json(sized / "bundle/parity.json")["decision_agreement"] == 1.0


def test_members_have_their_sizes_and_shares_of_the_bank(sized):
    made = load_model(sized / "model")
    assert made.sizes == (48, 64)
    assert [len(member.coreset.bank) for member in made.members] == [64, 64]  # of 128
    assert {member.name for member in made.members} == {"patchcore"}
    assert len(made.backbones) == 1


def test_the_bundle_scores_by_its_own_runner(sized, product, tmp_path):
    bundle = shutil.copytree(sized / "bundle", tmp_path / "bundle")
    pictures = [product / "test/good/000.png", product / "test/scratch/000.png"]
    done = subprocess.run(
        [sys.executable, "runner.py", *map(str, pictures)], cwd=bundle, capture_output=True, text=True, check=True
    )
    good, scratched = (json.loads(line)["score"] for line in done.stdout.splitlines())
    ((ours, _),) = score_files(load_model(sized / "model"), pictures, rules=Bundle.open(bundle).manifest.decoding)
    np.testing.assert_allclose([good, scratched], ours, atol=1e-3)
    assert scratched > good


def test_other_commands_take_it(sized, patchcore, product, tmp_path):
    done = loupe("score", sized / "bundle", product / "test", "--out", tmp_path / "scores.parquet")
    assert done.exit_code == 0, done.output
    assert len(pd.read_parquet(tmp_path / "scores.parquet")) == 16
    ensemble_runs(EnsembleRequest((patchcore, sized), product), tmp_path / "both")
    assert load_model(tmp_path / "both/model").sizes == (64, 48)


def test_the_same_command_has_nothing_to_do(sized, product, caplog):
    caplog.set_level("INFO")
    asked = ["--preset", "tiny", "--alpha", "0.2", "--size", "48,64"]
    assert loupe("fit", "patchcore", "--data", product, "--out", sized, *asked).exit_code == 0
    assert "nothing to do" in caplog.text


def test_a_killed_fit_goes_on_with_the_member_that_it_was_in(sized, product, tmp_path, caplog, monkeypatch):
    caplog.set_level("INFO")
    # The graph that is there is of the very model that comes of it, or `traced` would ask for another, in vain.
    monkeypatch.setattr(Stages, "trace", lambda stages, detector: stages.of(detector) / "graph")
    begun = shutil.copytree(sized, tmp_path / "run")
    (begun / "run.json").unlink()
    shutil.rmtree(begun / "work/run/patchcore@64")
    asked = ["--preset", "tiny", "--alpha", "0.2", "--size", "48,64"]
    assert loupe("fit", "patchcore", "--data", product, "--out", begun, *asked).exit_code == 0
    assert "train patchcore@64" in caplog.text
    assert "train patchcore@48" not in caplog.text
    assert tree_hash(begun / "model") == tree_hash(sized / "model")
