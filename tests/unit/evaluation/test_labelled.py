"""Labelled pictures against what a run knows, with nothing trained."""

import logging

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.core.artefacts import file_hash
from components.core.errors import DataError
from components.evaluation.labelled import labelled_rows, require_same


def picture(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((16, 16, 3), value, np.uint8)).save(path)
    return file_hash(path)


@pytest.fixture
def folder(tmp_path):
    for number in range(4):
        picture(tmp_path / f"day/good/{number}.png", 10 * number)
    picture(tmp_path / "day/hole/4.png", 200)
    return tmp_path / "day"


@pytest.fixture
def run(tmp_path):
    """A run's split: one picture on each side."""
    sides = ("fit", "calibrate", "test")
    hashes = [picture(tmp_path / f"set/{side}.png", 10 * number) for number, side in enumerate(sides)]
    names = [f"{side}.png" for side in sides]
    columns = {"image_id": names, "sha256": hashes, "split": sides, "dataset": "set"}
    (tmp_path / "run").mkdir()
    pd.DataFrame(columns).to_parquet(tmp_path / "run/split.parquet")
    return tmp_path / "run"


def test_what_was_learned_and_what_is_broken_is_left_out_and_named(run, folder, caplog):
    (folder / "good/9.png").write_bytes(b"x")
    with caplog.at_level(logging.INFO, "loupe"):
        table, said = labelled_rows(run, folder)
    # 0.png and 1.png are those of fit and calibrate; a picture of the test split may be evaluated again.
    assert list(table["image_id"]) == ["good/2.png", "good/3.png", "hole/4.png"]
    assert set(table["split"]) == {"labelled"}
    assert said["labelled"]["images"] == {"normal": 2, "anomalous": 1}
    assert said["labelled"]["learned_from"] == ["good/0.png", "good/1.png"]
    assert "day: evaluating 2 good and 1 defective images" in caplog.text
    assert "left out 2 that the run learned from: good/0.png, good/1.png" in caplog.text
    assert "left out 1 that cannot be read: good/9.png" in caplog.text


def test_where_nothing_is_left_the_reason_is_told(run, folder, tmp_path):
    for name in ("good/2.png", "good/3.png", "hole/4.png"):
        (folder / name).write_bytes(b"x")
    with pytest.raises(DataError, match=r"no picture is left to evaluate \(2 were learned from, 3 cannot be read\)"):
        labelled_rows(run, folder)
    with pytest.raises(DataError, match="none: is not a folder"):
        labelled_rows(run, tmp_path / "none")


def test_the_test_split_is_known_by_its_bytes(run, tmp_path):
    for learned in ("fit.png", "calibrate.png"):  # they may be gone
        (tmp_path / "set" / learned).unlink()
    require_same(run, tmp_path / "set")
    picture(tmp_path / "set/test.png", 99)
    with pytest.raises(DataError, match=r"learned data set set .*1 of 1 test images differ, first test.png \(other"):
        require_same(run, tmp_path / "set")
    (tmp_path / "set/test.png").unlink()
    with pytest.raises(DataError, match=r"first test.png \(missing\)"):
        require_same(run, tmp_path / "set")
