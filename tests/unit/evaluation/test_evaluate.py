"""``loupe evaluate``: only the run's own pictures as its test split, any labelled folder, good images alone."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from components.cli import app
from components.core.artefacts import read_json
from components.core.errors import DataError, SettingsError
from components.pipeline.fit import EvaluateRequest, evaluate_run
from tests.conftest import tile


@pytest.fixture(scope="module")
def run(patchcore, tmp_path_factory):
    """A copy: what is evaluated lies below it."""
    return shutil.copytree(patchcore, tmp_path_factory.mktemp("evaluate") / "run")


@pytest.fixture(scope="module")
def without_test(without_test, tmp_path_factory):
    return shutil.copytree(without_test, tmp_path_factory.mktemp("good") / "run")


def metrics(request, out):
    return read_json(evaluate_run(request, out) / "metrics.json")


def test_other_pictures_of_the_same_names_are_not_taken_for_the_test_split(run, product, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(product, other)
    Image.fromarray(tile(900)).save(other / "test/good/000.png")
    (other / "test/scratch/003.png").unlink()
    with pytest.raises(DataError) as error:
        evaluate_run(EvaluateRequest(run, other), tmp_path / "out")
    said = str(error.value)
    assert f"learned data set {product.name} (split " in said
    assert f"{other} holds other pictures: 2 of 16 test images differ, first test/good/000.png (other bytes)" in said
    assert f"--labelled {other}" in said
    assert not (tmp_path / "out").exists()
    moved = tmp_path / "moved"  # the same pictures elsewhere, the training ones gone, are the same
    shutil.copytree(product / "test", moved / "test")
    shutil.copytree(product / "ground_truth", moved / "ground_truth")
    found = metrics(EvaluateRequest(run, moved), tmp_path / "out")
    assert found["split"] == "test"
    assert found["overall"]["n"] == {"normal": 8, "anomalous": 8}
    assert found["overall"]["pixel"]["size"] == 64  # the run's own settings of evaluation


def test_a_labelled_folder_is_evaluated_but_for_what_the_run_learned_from(run, product, tmp_path, caplog):
    caplog.set_level("INFO", "loupe")
    folder = tmp_path / "today"
    shutil.copytree(product / "test/scratch", folder / "line/deep")
    shutil.copytree(product / "ground_truth/scratch", folder / "ground_truth/line")
    for i in range(5):
        path = folder / f"OK/{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(tile(700 + i)).save(path)
    shutil.copy(product / "train/good/004.png", folder / "OK/known.png")
    (folder / "OK/broken.png").write_bytes(b"x")
    with pytest.raises(DataError, match="OK sounds like good pictures"):
        evaluate_run(EvaluateRequest(run, labelled=folder), tmp_path / "out")
    arguments = ["evaluate", str(run), "--labelled", str(folder), "--good", "OK", "--groups", "folder"]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = read_json(run / "labelled/metrics.json")
    assert found["split"] == "labelled"
    assert found["labelled"]["images"] == {"normal": 5, "anomalous": 8}
    assert found["labelled"]["learned_from"] == ["OK/known.png"]
    assert "OK/broken.png" in found["labelled"]["unreadable"][0]
    assert found["overall"]["pixel"]["images"] == 13
    assert found["masks"] == {"used": 8, "unknown": {}, "without": 0}
    assert set(found["groups"]) == {"today", "deep"}
    assert "evaluating 5 good and 8 defective images" in caplog.text
    assert "left out 1 that the run learned from: OK/known.png" in caplog.text
    assert set(pd.read_parquet(run / "labelled/scores.parquet")["split"]) == {"labelled"}
    assert "labelled split" in (run / "labelled/gallery/index.html").read_text()


def test_a_folder_of_learned_pictures_alone_is_refused(run, product, tmp_path):
    shutil.copytree(product / "train/good", tmp_path / "today/good")
    with pytest.raises(DataError, match=r"no picture is left to evaluate \(40 were learned from, 0 cannot be read\)"):
        evaluate_run(EvaluateRequest(run, labelled=tmp_path / "today"), tmp_path / "out")


def test_masks_of_a_labelled_folder_may_be_declared(run, product, tmp_path):
    folder = tmp_path / "today"
    shutil.copytree(product / "test", folder / "test")
    for path in sorted((product / "ground_truth/scratch").glob("*.png")):
        target = folder / "ground_truth/scratch" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as mask:
            Image.fromarray(~np.asarray(mask)).save(target)
    unknown = metrics(EvaluateRequest(run, labelled=folder), tmp_path / "one")
    assert unknown["masks"] == {"used": 0, "unknown": {"looks inverted": 8}, "without": 0}
    assert "not_available" in unknown["overall"]["pixel"]
    assert unknown["overall"]["image"]["auroc"] > 0.9  # they stay in figures of images
    known = metrics(EvaluateRequest(run, labelled=folder, masks="inverted"), tmp_path / "two")
    right = metrics(EvaluateRequest(run, product), tmp_path / "three")
    assert known["overall"]["pixel"] == right["overall"]["pixel"]


def test_without_a_test_image_what_needs_no_labels_is_said(without_test):
    out = without_test / "evaluation"  # where the command writes to
    found = metrics(EvaluateRequest(without_test), out)
    assert found["overall"]["image"] == {"not_available": "the test split has no normal and no anomalous images"}
    assert found["overall"]["false_alarm_rate"] == {"not_available": "no images"}
    assert found["calibration"]["n"] >= 5
    low, high = found["calibration"]["false_alarm_interval"]
    assert 0 < low < 0.2 < high < 1
    assert 0 <= found["synthetic_auroc"] <= 1
    assert (out / "gallery/index.html").exists()
    assert len(pd.read_parquet(out / "scores.parquet")) == 0


@pytest.mark.parametrize(("sides", "missing"), [(["good"], "anomalous"), (["scratch"], "normal")])
def test_one_label_alone_gives_its_rate(without_test, product, sides, missing, tmp_path):
    for side in sides:
        shutil.copytree(product / "test" / side, tmp_path / "day/test" / side)
    found = metrics(EvaluateRequest(without_test, labelled=tmp_path / "day"), tmp_path / "out")
    assert found["overall"]["image"] == {"not_available": f"the labelled split has no {missing} images"}
    rate, none = ("false_alarm_rate", "miss_rate") if sides == ["good"] else ("miss_rate", "false_alarm_rate")
    low, high = found["overall"][rate]["interval"]
    assert low <= found["overall"][rate]["rate"] <= high
    assert found["overall"][none] == {"not_available": "no images"}
    assert (tmp_path / "out/gallery/gallery.png").exists()


@pytest.mark.parametrize(
    ("more", "error", "sentence"),
    [
        ({}, SettingsError, "give the data set of the run with --data, or another labelled folder with --labelled"),
        ({"labelled": "nowhere"}, DataError, "nowhere: is not a folder"),
        ({"data": "nowhere"}, DataError, "nowhere: is not a folder"),
    ],
)
def test_slips_are_one_sentence(run, more, error, sentence, tmp_path):
    places = {name: tmp_path / value for name, value in more.items()}
    with pytest.raises(error, match=sentence):
        evaluate_run(EvaluateRequest(run, **places), tmp_path / "out")


def test_tiny_defects_are_told_with_their_size_where_they_are_seen(run, product, tmp_path, caplog):
    folder = tmp_path / "wide"
    shutil.copytree(product / "test/good", folder / "good")
    pixels, mask = np.tile(tile(5), (8, 8, 1)), np.zeros((768, 768), np.uint8)
    pixels[100:110, 100:110], mask[100:110, 100:110] = 0, 255
    for path, content in (("pit/0.png", pixels), ("ground_truth/pit/0.png", mask)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content).save(folder / path)
    told = metrics(EvaluateRequest(run, labelled=folder), tmp_path / "out")
    found, sizes = told["defects"], told["overall"]["sizes"]
    assert (found["regions"], found["median_side"], found["size"]) == (1, 10.0, 64)
    assert found["median_side_seen"] == pytest.approx(10 * 64 / 768)
    assert set(sizes["classes"]) == {"0 to 16"}
    regions = sizes["classes"]["0 to 16"]["regions"]
    assert (regions["n"], regions["tiny"]) == (1, 1)  # the warning and the table speak of the same region
    assert "<td>under 16</td>" in (tmp_path / "out/gallery/index.html").read_text()
    assert "defects of about 10 pixels become 0.8 of the 64 x 64 that the detector sees" in caplog.text


def test_recall_by_size_counts_the_regions_of_the_test_split_and_the_decisions(run, product, tmp_path):
    told = metrics(EvaluateRequest(run, product), tmp_path / "out")
    classes, scale = told["overall"]["sizes"]["classes"], read_json(run / "calibration.json")["map"]
    assert told["overall"]["sizes"]["map_limit"] == scale["1.0"]
    assert sum(part["regions"]["n"] for part in classes.values()) == told["defects"]["regions"]
    found = sum(part["pictures"].get("found", 0) for part in classes.values())
    assert found == round((1 - told["overall"]["miss_rate"]["rate"]) * told["overall"]["n"]["anomalous"])
    assert set(told["groups"][product.name]["sizes"]["classes"]) == set(classes)
