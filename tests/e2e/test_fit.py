"""The main job on a small folder: fit, evaluate, score, and the bundle's own runner."""

import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pandas as pd
import pytest
from typer.testing import CliRunner

from components.cli import app
from components.core.artefacts import file_hash, read_json, tree_hash
from components.core.errors import BundleError, DataError, ParityError, PartlyScoredError
from components.decision.batch import score
from components.decision.bundle import Bundle
from components.export.export import _gate
from components.export.settings import ExportSettings
from components.synthesis.strategies import GRADED
from tests.conftest import FEW, SMALL


def loupe(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module", params=["fastflow", "patchcore"])
def run(request, patchcore, product, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / request.param
    if request.param == patchcore.name:
        return shutil.copytree(patchcore, out)
    loupe("fit", request.param, "--data", product, "--out", out, *SMALL, *FEW)
    return out


@pytest.fixture
def images(product):
    return sorted((product / "test").rglob("*.png"))


def test_run_holds_what_a_user_looks_for(run):
    assert {"model", "bundle", "calibration.json", "run.json"} <= {p.name for p in run.iterdir()}
    parity = read_json(run / "bundle" / "parity.json")
    assert parity["decision_agreement"] == 1.0
    held = pd.read_parquet(run / "split.parquet")["split"].isin(["calibrate", "test"]).sum()
    assert parity["sides"].pop("synthetic") == min(
        32 - held, parity["sides"]["calibrate"]
    )  # they join where few were held out
    assert sum(parity["sides"].values()) == held
    assert set(parity["sides"]) == {"calibrate", "test"}  # what was learned from proves nothing
    assert max(parity["score_error"], parity["map_error"]) < 1e-3


def test_calibrate_normals_get_one_fixed_synthetic_anomaly_each(run):
    below = run / "work" / "run"
    made = pd.read_parquet(below / "synthetic" / "synthetic.parquet")
    table = pd.read_parquet(run / "split.parquet")
    assert sorted(made["origin"]) == sorted(table[table["split"] == "calibrate"]["image_id"])
    assert all((below / "synthetic" / name).exists() for name in (*made["image_id"], *made["mask"], "grid.png"))
    assert set(made["strategy"]) <= set(GRADED)
    assert made["area"].between(0, 0.5, inclusive="neither").all()


def test_every_artefact_says_what_made_it(run):
    for folder in (run / "work" / "run" / run.name / name for name in ("model", "calibration", "bundle")):
        record = read_json(folder / "run.json")
        assert {"stage", "settings", "inputs", "seed", "versions"} <= set(record)
        assert all(len(digest) == 64 for digest in record["inputs"].values())


def test_evaluation_measures_the_scratches(run, product):
    loupe("evaluate", run, "--data", product)
    metrics = read_json(run / "evaluation" / "metrics.json")
    assert metrics["overall"]["n"] == {"normal": 8, "anomalous": 8}
    assert metrics["overall"]["image"]["auroc"] > 0.9
    assert metrics["overall"]["pixel"]["images"] == 16
    assert (run / "evaluation" / "gallery" / "gallery.png").stat().st_size > 10_000


def test_bundle_scores_as_torch_does(run, product, images, tmp_path):
    loupe("evaluate", run, "--data", product)
    table = pd.read_parquet(score(run / "bundle", images, tmp_path / "scores.parquet", tmp_path / "maps"))
    evaluated = pd.read_parquet(run / "evaluation" / "scores.parquet").set_index("image_id")["score"]
    ids = [p.relative_to(product).as_posix() for p in images]
    span = np.ptp(evaluated)
    np.testing.assert_allclose(table["score"], evaluated.loc[ids], atol=1e-3 * span)
    heat = np.load(table["map_uri"].iloc[0])
    assert heat.shape == (96, 96)
    assert heat.dtype == np.float32


def test_a_run_may_be_named_in_place_of_its_bundle(run, images, tmp_path):
    found = []
    for name in (run, run / "bundle"):
        loupe("score", name, images[0], "--out", tmp_path / "scores.parquet")
        found.append(pd.read_parquet(tmp_path / "scores.parquet")[["image_id", "model_version", "score"]])
    pd.testing.assert_frame_equal(*found)


def test_runner_of_the_bundle_agrees(run, images, tmp_path):
    table = pd.read_parquet(score(run / "bundle", images, tmp_path / "scores.parquet"))
    command = [sys.executable, run / "bundle" / "runner.py", *images]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    spoken = pd.DataFrame(map(json.loads, lines))
    np.testing.assert_allclose(spoken["score"], table["score"], rtol=1e-6)
    assert list(spoken["decision"]) == list(table["decision"])
    assert not (run / "bundle" / "__pycache__").exists()


def test_scoring_never_loads_torch(run, images, tmp_path):
    code = (
        "import sys; from pathlib import Path; from components.decision.batch import score;"
        f"score(Path({str(run / 'bundle')!r}), [Path({str(images[0])!r})], Path({str(tmp_path / 's.parquet')!r}));"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_changed_bundle_is_refused(run, tmp_path):
    shutil.copytree(run / "bundle", tmp_path / "bundle")
    with (tmp_path / "bundle" / "model.onnx").open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(BundleError, match="changed since export"):
        Bundle.open(tmp_path / "bundle")


def test_unreadable_image_is_named_and_the_rest_scored(run, images, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(PartlyScoredError, match="1 of 2 files were not scored"):
        score(run / "bundle", [broken, images[0]], tmp_path / "s.parquet")
    table = pd.read_parquet(tmp_path / "s.parquet")
    assert list(table["decision"].isna()) == [True, False]
    assert table["problem"].iloc[0].startswith(f"{broken}: is not an image")
    assert table["problem"].isna().iloc[1]
    with pytest.raises(DataError, match="none of the 1 files"):
        score(run / "bundle", [broken], tmp_path / "t.parquet")


def test_same_seed_same_bytes(run, product, tmp_path):
    loupe("fit", run.name, "--data", product, "--out", tmp_path / "again", *SMALL)
    for name in ("model", "bundle", "calibration.json"):
        assert tree_hash(tmp_path / "again" / name) == tree_hash(run / name), name
    loupe("evaluate", tmp_path / "again", "--data", product)
    loupe("evaluate", run, "--data", product)
    one, two = (file_hash(r / "evaluation" / "scores.parquet") for r in (tmp_path / "again", run))
    assert one == two


def test_graph_holds_no_path_of_this_machine(run, product):
    graph = (run / "bundle" / "model.onnx").read_bytes()
    assert b"site-packages" not in graph
    assert str(product).encode() not in graph


def test_graph_says_what_it_is_and_takes_any_batch_and_size(run):
    graph = onnx.load(run / "bundle" / "model.onnx")
    said = {entry.key: entry.value for entry in graph.metadata_props}
    calibration = read_json(run / "calibration.json")
    assert said["detector"] == run.name
    assert float(said["threshold"]) == calibration["threshold"]
    assert said["model"] == file_hash(run / "model" / "model.safetensors")
    bundle = Bundle.open(run / "bundle")
    for count, *shape in ((1, 96, 96), (3, 64, 200)):
        drawn = np.random.default_rng(0).integers(0, 256, (count, *shape, 3), np.uint8)
        scores, maps, _ = bundle.score(list(drawn))
        assert scores.shape == (count,)
        assert maps.shape == (count, 1, *shape)


def test_parity_gate_fails_beyond_tolerance(tmp_path):
    bad = {"score_error": 0.01, "map_error": 0.0, "decision_agreement": 1.0, "worst_image": "a.png"}
    with pytest.raises(ParityError, match=r"differs from the detector by 1\.00e-02"):
        _gate(bad, ExportSettings(), tmp_path / "bundle")
    assert (tmp_path / "bundle.parity.json").exists()
