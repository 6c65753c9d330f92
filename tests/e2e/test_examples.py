"""The examples run as they stand."""

import subprocess
import sys

import pandas as pd


def run(*words) -> str:
    done = subprocess.run([sys.executable, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_own_pictures_are_scored_the_worst_first(product, tmp_path):
    good, new = product / "train" / "good", product / "test"
    said = run("examples/own_pictures.py", good, new, tmp_path, "--preset", "tiny", "--alpha", "0.2")
    found = pd.read_csv(tmp_path / "scores.csv")
    assert len(found) == 16
    assert found["image_id"].head(8).str.contains("scratch").all()
    assert "scratch" in said


def test_a_detector_of_ones_own_goes_through_the_loop(product):
    assert run("examples/own_detector.py", product) == "image AUROC 1.000 on 8 good and 8 defective pictures\n"
