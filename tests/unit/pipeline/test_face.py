"""`import loupe`: arrays and paths in, frames and arrays out, and the numbers are those of the command line."""

import doctest
import shutil
import subprocess
import sys
from pathlib import Path

import loupe
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.core.artefacts import read_json
from components.core.errors import BundleError, DataError
from components.decision.batch import score as score_files
from components.pipeline import face
from tests.conftest import tile

PACKAGE = Path(face.__file__).parents[1] / "cli/package"


def scratched(seed: int) -> np.ndarray:
    pixels = tile(seed)
    pixels[30:50, 20:44] = 250
    return pixels


@pytest.fixture
def desk(patchcore, other_bundle, tmp_path, monkeypatch):
    """A folder with two runs and a new picture, where somebody works."""
    shutil.copytree(patchcore, tmp_path / "runs/tiles")
    shutil.copytree(other_bundle.parent, tmp_path / "runs/other")
    (tmp_path / "new").mkdir()
    Image.fromarray(tile(100)).save(tmp_path / "new/000.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_of_the_docstrings_run(desk):
    given = {"loupe": loupe, "tiles": [tile(seed) for seed in range(26)] + [scratched(26), scratched(27)]}
    given |= {name: getattr(loupe, name) for name in loupe.__all__}
    found = doctest.DocTestFinder(recurse=False)
    examples = [
        example
        for thing in (loupe, *(getattr(face, name) for name in loupe.__all__ if hasattr(face, name)))
        for example in found.find(thing, globs=given)
        if example.examples
    ]
    assert len(examples) == 6
    for example in examples:
        said: list[str] = []
        ended = doctest.DocTestRunner().run(example, out=said.append)
        assert ended.failed == 0, "".join(said)
    assert (desk / "compare.html").exists()


def test_signs_are_those_of_scikit_learn_and_decisions_those_of_the_bundle(bundle):
    model, pictures = loupe.load(bundle), [*map(tile, range(100, 104)), *map(scratched, range(104, 108))]
    scores, said = model.score_samples(pictures), model.predict(pictures)
    assert scores[:4].min() > scores[4:].max()
    assert said.tolist() == [1] * 4 + [-1] * 4
    assert np.array_equal(model.decision_function(pictures), scores + model.threshold)
    assert np.array_equal(model.decision_function(pictures) < 0, said == -1)
    assert np.array_equal(model.p_values(pictures) <= model.alpha, said == -1)
    maps = model.maps(np.stack(pictures))
    assert {heat.shape for heat in maps} == {maps[0].shape}
    assert max(maps[0].max(), 0) < maps[4].max()
    assert np.array_equal(model.predict(np.stack(pictures)), said)


def test_arrays_files_and_the_command_line_score_alike(desk, bundle, product):
    folder = product / "test"
    files = sorted(folder.rglob("*.png"))
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in files]
    of_files, of_arrays, of_folder = (loupe.score(bundle, given) for given in (files, pixels, folder))
    written = pd.read_parquet(score_files(bundle, files, desk / "scores.parquet"))
    for table in (of_files, of_arrays, of_folder):
        assert list(table.columns) == list(written.columns)
        assert np.array_equal(table["score"], written["score"])
        assert table["decision"].tolist() == written["decision"].tolist()
    assert np.array_equal(-loupe.load(bundle).score_samples(pixels), written["score"])
    assert of_arrays["image_id"].head(2).tolist() == ["000000.png", "000001.png"]


def test_a_broken_file_has_its_reason_and_the_others_are_scored(desk, bundle):
    (desk / "new/broken.png").write_text("no picture")
    table = loupe.score(loupe.load(bundle), desk / "new", maps=desk / "maps").set_index("image_id")
    assert table["problem"].notna().tolist() == [False, True]
    assert np.load(table["map_uri"].iloc[0]).ndim == 2
    with pytest.raises(DataError, match="broken"):
        loupe.load(bundle).predict([desk / "new/broken.png"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (np.zeros((64, 64, 3), np.uint8), r"give pictures as \(N, H, W, 3\)"),
        (np.zeros((1, 64, 64, 3), np.float32), "picture 0: is float32"),
        ([np.zeros((64, 64), np.uint8)], "picture 0: is uint8"),
        ([3], "picture 0: is int"),
        ("nowhere", "nowhere"),
    ],
)
def test_what_is_no_picture_is_named(bundle, given, said):
    with pytest.raises(loupe.LoupeError, match=said):
        loupe.load(bundle).predict(given)


@pytest.mark.usefixtures("desk")
def test_what_is_no_run_or_no_label_is_named():
    with pytest.raises(BundleError, match="is not a folder"):
        loupe.load("runs/none")
    for labels, said in {(1, 0): "label 0", (1,): "2 pictures and 1 labels"}.items():
        with pytest.raises(DataError, match=said):
            loupe.evaluate("runs/tiles", [tile(1), tile(2)], labels)
    with pytest.raises(DataError, match="without labels"):
        loupe.evaluate("runs/tiles", [tile(1)])


def test_an_evaluation_is_that_of_the_command(desk, product):
    by_folder = loupe.evaluate("runs/tiles", product / "test", out="by-folder")
    files = sorted((product / "test").rglob("*.png"))
    by_label = loupe.evaluate("runs/tiles", files, ["normal"] * 8 + ["anomalous"] * 8)
    one, other = (found.metrics["overall"]["image"]["auroc"] for found in (by_folder, by_label))
    assert one == other
    assert by_label.folder == Path("runs/tiles/labelled")
    assert by_label.metrics == read_json(desk / "runs/tiles/labelled/metrics.json")
    assert len(by_label.scores) == 16


def test_a_fit_of_the_same_arrays_is_not_made_again(desk):
    good = np.stack([tile(seed) for seed in range(24)])
    asked = {"preset": "tiny", "alpha": 0.2, "settings": {"bank_size": 60, "evaluation.bootstrap": 20}}
    model = loupe.fit(good, "runs/arrays", **asked)
    before = (desk / "runs/arrays/run.json").stat().st_mtime_ns
    assert read_json(desk / "runs/arrays/run.json")["request"]["overrides"] == {"bank_size": 60}
    again = loupe.fit(list(good), "runs/arrays", **asked)
    assert (desk / "runs/arrays/run.json").stat().st_mtime_ns == before
    assert np.array_equal(again.score_samples(good[:1]), model.score_samples(good[:1]))
    assert len(list((desk / "runs/arrays-pictures/train/good").iterdir())) == 24


def test_importing_loads_nothing_heavy_and_the_package_says_that_it_is_typed():
    heavy = ["torch", "pandas", "onnxruntime", "mlflow", "prefect", "typer", "sklearn"]
    asked = f"import sys, loupe; assert callable(loupe.fit); print([n for n in {heavy} if n in sys.modules])"
    paths = f"{PACKAGE}:{PACKAGE.parents[2]}"
    done = subprocess.run([sys.executable, "-c", asked], env={"PYTHONPATH": paths}, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
    assert (PACKAGE / "loupe/py.typed").exists()
    assert loupe.__version__
    with pytest.raises(AttributeError, match="nonsense"):
        _ = loupe.nonsense
