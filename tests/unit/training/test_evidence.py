"""What is known of a trained detector without a label."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.core.artefacts import read_json
from components.core.records import CHECK_COLUMNS, NORMAL, NUISANCE
from components.pictures.decoding import DEFAULT
from components.synthesis.nuisance import NUISANCES
from components.synthesis.strategies import GRADED
from components.training import evidence
from components.training.evidence import nuisances, summary
from tests.conftest import tile


def table(**kinds):
    """CHECK_COLUMNS with the (extent, score) of each kind."""
    rows = [("x", kind, extent, score) for kind, pairs in kinds.items() for extent, score in pairs]
    return pd.DataFrame(rows, columns=list(CHECK_COLUMNS))


def test_figures_are_told_by_kind_by_size_and_by_nuisance():
    normal = [(np.nan, score) for score in np.linspace(0, 1, 101)]
    scores = table(
        **{NORMAL: normal, "graded_small": [(10, 2.0), (20, -1.0)], "graded_wide": [(90, 2.0)]},
        **{NUISANCE + "gain": [(np.nan, 0.5)] * 4, NUISANCE + "blur": [(np.nan, 3.0), (np.nan, 0.94)]},
    )
    found = summary(scores)
    assert found["normals"] == 101
    assert found["kinds"] == {"graded_small": {"auroc": 0.5, "of": 2}, "graded_wide": {"auroc": 1.0, "of": 1}}
    assert {size: part["auroc"] for size, part in found["extents"].items()} == {
        "0 to 16": 1.0,
        "16 to 32": 0.0,
        "64 to 128": 1.0,
    }
    assert found["nuisances"]["gain"] == {"auroc": pytest.approx(0.5), "of": 4, "alarms": 0.0}
    assert found["nuisances"]["blur"]["alarms"] == 0.5


def test_nuisances_take_turns_and_are_drawn_on_some_of_the_normals(tmp_path, monkeypatch):
    """A detector that sees brightness alone alarms where that was changed and nowhere else."""
    paths = []
    for number in range(45):
        Image.fromarray(tile(number, 64)).save(tmp_path / f"{number}.png")
        paths.append(tmp_path / f"{number}.png")
    monkeypatch.setattr(evidence, "MOST", 20)
    monkeypatch.setattr(
        evidence, "score_pictures", lambda _, batch, __: np.array([picture.mean() for picture in batch])
    )
    detector = SimpleNamespace(rules=lambda rules: rules)
    found = nuisances(detector, [path.name for path in paths], paths, DEFAULT, 0)
    assert list(found.columns) == list(CHECK_COLUMNS)
    assert found["kind"].value_counts().to_dict() == {NUISANCE + name: 4 for name in NUISANCES}
    before = np.array([tile(int(name[:-4]), 64).mean() for name in found["image_id"]])
    moved = np.abs(found["score"] / before - 1)
    gain = found["kind"] == NUISANCE + "gain"
    assert moved[gain].min() > 0.03
    assert moved[~gain].max() < 0.02


def test_scores_that_are_no_numbers_are_the_most_anomalous_and_stop_nothing(monkeypatch):
    """A training that has come apart is told by its figures, at the end like any other."""
    monkeypatch.setattr(evidence, "nuisances", lambda *_: table(**{NUISANCE + "gain": [(np.nan, 1.0)]}))
    told = table(**{NORMAL: [(np.nan, 0.0), (np.nan, 1.0)], "graded_small": [(10, np.nan), (10, -np.inf)]})
    found = summary(evidence.with_nuisances(None, told, Path(), DEFAULT, 0))
    assert found["kinds"]["graded_small"]["auroc"] == 0.5


def test_every_training_leaves_its_evidence(patchcore):
    scores, found = pd.read_parquet(patchcore / "model/check.parquet"), read_json(patchcore / "model/check.json")
    assert summary(scores) == found
    assert set(found["kinds"]) == set(GRADED)
    assert set(found["nuisances"]) <= set(NUISANCES)
    made = len(scores) - (scores["kind"].str.startswith(NUISANCE)).sum() - found["normals"]
    assert sum(part["of"] for part in found["kinds"].values()) == made
