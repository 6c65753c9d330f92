"""The probe that says how strong graded anomalies must be."""

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.backbones import runtime
from components.core.artefacts import read_json
from components.synthesis.settings import SynthesisSettings
from components.synthesis.strategies import GRADED
from components.synthesis.synthesise import SPREAD
from components.training import difficulty, probe
from components.training.difficulty import MIDDLE, STRONGEST, WANTED, WEAKEST, level_of
from components.training.settings import TrainSettings
from tests.conftest import tile

SETTINGS = SynthesisSettings()


@dataclass
class Seen:
    """A probe to which an anomaly shows from the strength *at* on, the more the stronger it is."""

    at: float
    paths: tuple = (1, 2, 3)

    def auroc(self, _, settings, __):
        strength = math.sqrt(settings.strength[0] * settings.strength[1] / (SPREAD[0] * SPREAD[1]))
        return 0.5 + 0.5 / (1 + (self.at / strength) ** 3)


@pytest.mark.parametrize("at", [0.05, 0.1, 0.3])
def test_the_strength_is_one_at_which_the_probe_is_neither_sure_nor_blind(at):
    level = level_of(Seen(at), "graded_small", SETTINGS, 0)
    assert WANTED[0] <= level.probe_auroc <= WANTED[1]
    assert level.anomalies == 3


def test_what_nobody_sees_is_as_strong_as_it_gets_and_what_all_see_as_weak():
    hidden, plain = (level_of(Seen(at), "graded_small", SETTINGS, 0) for at in (50.0, 1e-4))
    assert hidden.probe_auroc < WANTED[0]
    assert hidden.strength > 0.8 * STRONGEST
    assert plain.probe_auroc > WANTED[1]
    assert plain.strength < 1.3 * WEAKEST


@pytest.fixture(scope="module")
def made(tmp_path_factory, store):
    """A small data set with its graded anomalies, by the tiny preset."""
    root = tmp_path_factory.mktemp("graded")
    names = [f"{number:02d}.png" for number in range(28)]
    for number, name in enumerate(names):
        Image.fromarray(tile(number)).save(root / name)
    sides = ["calibrate" if number % 2 else "fit" for number in range(28)]
    table = pd.DataFrame({"image_id": names, "sha256": names, "split": sides, "label": "normal", "group": "g"})
    (root / "split").mkdir()
    table.to_parquet(root / "split/split.parquet")
    train = TrainSettings(preset="tiny")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(difficulty, "FeatureStore", lambda *_: store)
        yield (
            difficulty.graded(root / "split", root, root / "out", replace(SETTINGS, per_image=4), train, 0),
            root,
            train,
        )


def test_levels_are_written_and_kept_to(made):
    out, *_ = made
    levels, table = read_json(out / "levels.json"), pd.read_parquet(out / "synthetic.parquet")
    assert set(levels) == set(GRADED)
    for kind, level in levels.items():
        drawn = table[table["strategy"] == kind]["strength"]
        assert len(drawn) == 14
        assert drawn.between(level["strength"] * SPREAD[0], level["strength"] * SPREAD[1]).all()
    assert any(WANTED[0] <= level["probe_auroc"] <= WANTED[1] for level in levels.values())


def test_freed_memory_is_kept_before_the_probe_looks(made, monkeypatch):
    """The flow begins with it, in a process in which nothing has asked for that: its backbone took twice the time."""
    _, root, train = made
    asked = []
    monkeypatch.setattr(difficulty, "keep_freed_memory", lambda: asked.append("kept"))
    monkeypatch.setattr(difficulty, "probe_of", lambda *_: asked.append("probe") or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        difficulty.fitted(root / "split", root, train)
    assert asked == ["kept", "probe"]


def test_a_graph_that_was_kept_is_the_one_the_probe_looks_through(made, monkeypatch, tmp_path):
    _, root, train = made
    train = replace(train, store=str(tmp_path / "kept"))
    probe.keep_graph(tmp_path / "kept", train.preset)
    monkeypatch.setattr(runtime, "_export", lambda *_: pytest.fail("the graph is made a second time"))
    monkeypatch.setattr(probe, "_last", None)
    difficulty.fitted(root / "split", root, train)
    assert len(list((tmp_path / "kept").glob("backbone-*.onnx"))) == 1


def test_the_level_says_what_the_probe_sees(made):
    """Drawn anew at the level, the anomalies are as hard as was written; at a tenth of it they are harder."""
    out, root, train = made
    probe = difficulty.fitted(root / "split", root, train)
    kind, level = max(read_json(out / "levels.json").items(), key=lambda item: item[1]["probe_auroc"])
    strong, weak = (
        probe.auroc(kind, difficulty.spread(SETTINGS, factor * level["strength"]), 0) for factor in (1, 0.1)
    )
    assert strong == pytest.approx(level["probe_auroc"])
    assert weak < strong - 0.05
    assert abs(strong - MIDDLE) < 0.2


def test_the_extent_of_an_anomaly_is_told_in_its_picture_s_pixels(made):
    out, *_ = made
    for row in pd.read_parquet(out / "synthetic.parquet").itertuples():
        mask = np.asarray(Image.open(out / row.mask))
        assert row.extent == pytest.approx(np.sqrt(mask.astype(bool).sum()))


def test_other_strategies_need_no_probe(made, tmp_path, monkeypatch):
    _, root, train = made
    monkeypatch.setattr(difficulty, "fitted", None)
    out = difficulty.graded(root / "split", root, tmp_path / "out", replace(SETTINGS, strategies=("scar",)), train, 0)
    assert read_json(out / "levels.json") == {}
