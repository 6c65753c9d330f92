"""Settings that cannot work are told before the work: one sentence with the key, what it is and what it may be."""

import math
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from PIL import Image

from components.calibration.settings import CalibrationSettings
from components.core.artefacts import atomic_dir
from components.core.errors import CalibrationError, LoupeError, SettingsError
from components.datasets.settings import DataSettings
from components.pictures.decoding import Decoding
from components.pipeline.fit import EvaluateRequest, FitRequest, evaluate_run, fit_folder
from components.pipeline.params import Benchmark, Params, Pipeline, View, load_params, params_or_defaults
from components.pipeline.retraining import Retraining
from components.pipeline.stages import Stages
from components.retraining.settings import RetrainSettings
from components.training.settings import TrainSettings
from tests.conftest import tile

GIVEN = {
    "data": {"tiles": {"adapter": "folder", "name": "tiles"}, "cells": {"adapter": "elpv", "name": "cells"}},
    "views": {"line-1": {"data": "tiles"}, "mono": {"data": "cells", "groups": ["mono"]}},
    "pipeline": {"views": ["line-1"], "detectors": ["patchcore"]},
    "benchmark": {
        "views": ["line-1"],
        "detectors": ["fastflow"],
        "sources": {"line-1": "tiles"},
        "data": {"tiles": "line-1"},
    },
}


def loaded(tmp_path, change=None):
    values = yaml.safe_load(yaml.safe_dump(GIVEN))
    for key, value in (change or {}).items():
        *parents, last = key.split("/")
        part = values
        for parent in parents:
            part = part.setdefault(parent, {})
        part[last] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(values))
    return load_params(file)


def test_what_is_in_order_loads(tmp_path):
    params = loaded(tmp_path)
    assert params.benchmark.sources == {"line-1": "tiles"}
    assert params.settings_of("patchcore").bank_size == 10_000


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", -1, "seed is -1; give a whole number from 0 to 4294967295"),
        ("seed", 2**32, "seed is 4294967296"),
        ("seed", "one", "seed is 'one', a str; give a int"),
        ("calibration/alpha", 0.0, "calibration.alpha is 0.0; give a number between 0 and 1"),
        ("calibration/alpha", 1.0, "calibration.alpha is 1.0"),
        ("calibration/alpha", math.nan, "calibration.alpha is nan"),
        ("calibration/confidence", 2.0, "calibration.confidence is 2.0"),
        ("train/checkpoint_every", 0.0, "train.checkpoint_every is 0; give seconds above 0"),
        ("train/checkpoint_every", math.nan, "train.checkpoint_every is nan"),
        ("train/store_limit_gb", -1.0, "train.store_limit_gb is -1"),
        ("train/precision", "16", "train.precision is 16; choose one of 32-true"),
        ("train/detectors/patchcor", {}, "train.detectors: patchcor does not exist; did you mean patchcore?"),
        ("pipeline/ensembles", [["patchcore", "padim"]], "pipeline.ensembles: padim does not exist"),
        ("pipeline/ensembles", "some", "pipeline.ensembles is 'some'; give auto, or lists of detectors"),
        ("pipeline/total_minutes", 0, "pipeline.total_minutes"),
        ("pipeline/ensembles", [["patchcore"]], "name two or more different detectors in each"),
        ("pipeline/ensembles", [["patchcore", "patchcore"]], "name two or more different detectors in each"),
        ("pipeline/detectors", ["fastflo"], "pipeline.detectors: fastflo does not exist; did you mean fastflow?"),
        ("pipeline/views", ["line-2"], "pipeline.views: line-2 does not exist; did you mean line-1?"),
        ("benchmark/detectors", ["x"], "benchmark.detectors: x does not exist; known are adtr"),
        ("benchmark/detectors", ["padim@x"], "benchmark.detectors: padim@x: 'x' is no size"),
        (
            "benchmark/runs",
            {"line-1-padim": {"view": "line-1", "detector": "padim", "method": "padim"}},
            "benchmark.runs.line-1-fastflow: is not what benchmark.views and benchmark.detectors say; write {view:",
        ),
        (
            "benchmark/runs",
            {"line-1-fastflow": {"view": "line-1", "detector": "fastflow", "method": "fastflow"}},
            "train.detectors.fastflow: is missing, and dvc.yaml asks for it; write `fastflow: {}`",
        ),
        ("pipeline/size", "big", "pipeline.size is 'big'; give auto, or different sizes from 32 pixels"),
        ("pipeline/size", [256, 8], "pipeline.size is (256, 8)"),
        ("pipeline/latency_ms", 0.0, "pipeline.latency_ms is 0; give a number above 0"),
        ("pipeline/minutes", -1.0, "pipeline.minutes is -1"),
        ("retrain/size", 0, "retrain.size is 0; give auto"),
        ("retrain/detectors", ["patchcoer"], "retrain.detectors: patchcoer does not exist"),
        ("benchmark/sources", {"line-2": "tiles"}, "benchmark: line-2 does not exist"),
        ("benchmark/sources", {"line-1": "tile"}, "benchmark: tile does not exist; did you mean tiles?"),
        ("benchmark/sources", {"line-1": "cells"}, "view line-1 is of data set tiles, not of cells"),
        ("benchmark/sources", {}, "benchmark.sources: line-1 does not exist"),
        ("benchmark/data", {"tiles": "line-3"}, "benchmark: line-3 does not exist"),
        ("benchmark/data", {"cells": "line-1"}, "view line-1 is of data set tiles, not of cells"),
        ("views/line-1/data", "tile", "views.line-1.data: tile does not exist; did you mean tiles?"),
    ],
)
def test_what_cannot_work_is_refused_when_the_file_is_read(key, value, said, tmp_path):
    with pytest.raises(SettingsError) as refused:
        loaded(tmp_path, {key: value})
    assert said in str(refused.value)


@pytest.mark.parametrize("name", ["line 1/cam:2", "../line", "", ".hidden", "x" * 101, "Gehäuse", "line.", "a\nb"])
def test_a_view_names_folders_and_a_model(name, tmp_path):
    with pytest.raises(SettingsError, match="100 of A to Z, a to z, 0 to 9, dot, dash and underscore"):
        loaded(tmp_path, {"views": {name: {"data": "tiles"}}, "pipeline": {}, "benchmark": {}})


@pytest.mark.parametrize("name", ["retrain", "leaderboard"])
def test_a_view_takes_no_folder_of_others(name):
    with pytest.raises(SettingsError, match=f"{name} is the name of a folder"):
        Params({}, {name: View("tiles")})


@pytest.mark.parametrize(
    ("text", "said"),
    [("views: [", r"params\.yaml, line 1: is no YAML"), ("- a\n", "holds no keys"), (b"\xff\xfe\x00", "no YAML")],
)
def test_a_file_that_is_no_params_file(text, said, tmp_path):
    file = tmp_path / "params.yaml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SettingsError, match=said):
        load_params(file)


def test_each_record_checks_itself():
    for wrong in (
        lambda: CalibrationSettings(alpha=-0.1),
        lambda: TrainSettings(checkpoint_every=0),
        lambda: Params({}, {}, seed=-1),
        lambda: Params({}, {}, pipeline=Pipeline(detectors=("x",))),
        lambda: Params({}, {}, benchmark=Benchmark(detectors=("x",))),
        lambda: Params({}, {}, retrain=RetrainSettings(detectors=("x",))),
    ):
        with pytest.raises(SettingsError):
            wrong()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"detector": "patchcor"}, "patchcor is not a detector; did you mean patchcore?"),
        ({"preset": "small"}, "no preset small; choose one of"),
        ({"overrides": {"bank_size": "many"}}, "bank_size is 'many', a str"),
        ({"detector": "patchcore@abc"}, "'abc' is no size"),
        ({"detector": "padim@100"}, "padim@100: padim cannot take pictures of this size"),
        ({"detector": "padim", "size": "64,100"}, "padim@100: padim cannot take pictures of this size"),
        ({"detector": "patchcore@384", "size": "512"}, "patchcore: is asked for at different sizes"),
        ({"overrides": {"backbone.size": 96}, "size": 64}, "its settings 96, size 64; leave all but one out"),
        ({"size": "large"}, "size is 'large'; give auto"),
        ({"latency_ms": 0.0}, "latency-ms is 0; give a number above 0"),
        ({"minutes": -1.0}, "minutes is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"alpha": 2.0}, "alpha is 2.0"),
        ({"checkpoint_every": 0.0}, "checkpoint_every is 0"),
    ],
)
def test_fit_tells_before_it_writes(asked, said, product, tmp_path):
    request = {"detector": "patchcore", "data": product, "preset": "tiny"} | asked
    with pytest.raises(SettingsError) as refused:
        fit_folder(FitRequest(**request), tmp_path / "run")
    assert said in str(refused.value)
    assert not list(tmp_path.iterdir())


def test_fit_refuses_a_place_that_is_no_run(product, tmp_path):
    before = sorted(product.rglob("*"))
    foreign = tmp_path / "letters"
    foreign.mkdir()
    (foreign / "letter.txt").write_text("dear")
    for out, said in (
        (product, "is the data set itself"),
        (product / "train" / "good", "inside the data set"),
        (foreign, "holds letter.txt and is not a run"),
    ):
        with pytest.raises(LoupeError, match=said):
            fit_folder(FitRequest("patchcore", product, preset="tiny"), out)
    assert sorted(product.rglob("*")) == before
    assert [path.name for path in foreign.iterdir()] == ["letter.txt"]


def test_evaluate_does_not_replace_a_folder_that_is_no_evaluation(bundle, product):
    for out, said in ((product, "is the data set itself"), (bundle, "is not an evaluation")):
        with pytest.raises(SettingsError, match=said):
            evaluate_run(EvaluateRequest(bundle.parent, product), out)
    with pytest.raises(SettingsError, match="seed is -2"):
        evaluate_run(EvaluateRequest(bundle.parent, product, seed=-2), bundle.parent / "evaluation")


def test_too_few_good_pictures_are_told_before_anything_is_made_of_the_split(tmp_path):
    (tmp_path / "part/train/good").mkdir(parents=True)
    for i in range(40):
        Image.fromarray(tile(i, 64)).save(tmp_path / "part/train/good" / f"{i:02d}.png")
    request = FitRequest("patchcore", tmp_path / "part", preset="tiny", alpha=0.01)
    with pytest.raises(CalibrationError, match=r"40 good training pictures are too few.*99 are needed: add 59"):
        fit_folder(request, tmp_path / "run")
    assert not (tmp_path / "run/work/run/synthetic").exists()
    assert not (tmp_path / "run/work/run/patchcore").exists()


def test_a_joined_view_counts_the_pictures_of_all(tmp_path):
    params = Params(
        {name: DataSettings("folder", name) for name in "ab"},
        {"a": View("a"), "b": View("b"), "both": View(views=("a", "b"))},
        artefacts=str(tmp_path),
    )
    with atomic_dir(tmp_path / "both" / "split") as scratch:
        rows = {"image_id": map(str, range(18)), "split": "calibrate", "label": "normal"}
        pd.DataFrame(rows).to_parquet(scratch / "split.parquet")
    with pytest.raises(CalibrationError, match=r"18 good training pictures are too few.*add 1,"):
        Stages(params, "both", tmp_path).synthesise()


def test_the_flow_tells_of_the_last_detector_before_it_trains_the_first(tmp_path, monkeypatch):
    from flows import train

    loaded(tmp_path)
    monkeypatch.setattr(train, "get_run_logger", lambda: None)
    monkeypatch.setattr(train, "bring_data", lambda _: pytest.fail("work began"))
    for asked, said in (
        ({"detectors": ["patchcore", "fastflo"]}, "fastflo is not a detector"),
        ({"views": ["line-1", "line-9"]}, "views.line-9 does not exist"),
    ):
        with pytest.raises(SettingsError, match=said):
            train.train.fn(tmp_path / "params.yaml", **asked)


def test_a_pipeline_without_test_images_says_why_there_is_no_leaderboard(tmp_path):
    from components.evaluation.leaderboard import leaderboard

    out = leaderboard({}, tmp_path / "leaderboard")
    for name in ("leaderboard.md", "leaderboard.html"):
        text = (out / name).read_text()
        assert "No view has labelled test pictures" in text
        assert "|" not in text


def test_params_of_a_retraining_load_again(tmp_path, monkeypatch):
    """They name one view; what the others were for stays behind."""
    monkeypatch.setattr(Retraining, "_decoding", lambda _: Decoding())
    verdict = SimpleNamespace(id="v1", model="line-1", source="cam")
    params = loaded(tmp_path, {"artefacts": str(tmp_path / "artefacts")})
    job = Retraining(params, verdict)
    job.folder.mkdir(parents=True)
    job._write_params()
    assert list(load_params(job.derived).views) == [job.live]
    assert load_params(job.derived).calibration.folds == 0  # the gate compares on pictures that are held out


def test_a_bundle_alone_needs_no_params_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOUPE_STORE", raising=False)
    assert params_or_defaults(Path("params.yaml")).store == "store"
    monkeypatch.setenv("LOUPE_STORE", "elsewhere")
    assert params_or_defaults(Path("params.yaml")).store == "elsewhere"
    with pytest.raises(SettingsError, match=r"other\.yaml: not found"):
        params_or_defaults(Path("other.yaml"))
