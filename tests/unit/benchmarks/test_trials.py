"""Trials without a label: what a name asks for, what is measured, what the table says of it."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.quality import trials
from benchmarks.quality.trials import Trial
from components.core.errors import SettingsError
from components.core.records import NORMAL, NUISANCE


def checked() -> pd.DataFrame:
    """Normals at 0 to 9, a kind that lies above all of them, one among them, and a nuisance above them."""
    parts = {NORMAL: np.arange(10), "graded_small": np.arange(10) + 20, "graded_wide": np.arange(10)}
    parts[NUISANCE + "gain"] = np.arange(10) + 100
    rows = [(str(n), kind, 16.0, float(s)) for kind, scores in parts.items() for n, s in enumerate(scores)]
    return pd.DataFrame(rows, columns=["image_id", "kind", "extent", "score"])


def test_a_name_says_what_is_learned_with_and_what_scores():
    plain, learned = Trial.of("mtd/nln"), Trial.of("mtd/nln/epochs=4;loss=structure")
    assert (plain.view, plain.detector, plain.learned, plain.scored) == ("mtd", "nln", {}, {})
    assert learned.learned == {"epochs": 4, "loss": "structure"}
    assert (learned.settings["epochs"], learned.settings["loss"]) == (4, "structure")
    again = Trial.of("mtd/nln/epochs=4@share=0.5;positions=false")
    assert (again.learned, again.scored) == ({"epochs": 4}, {"share": 0.5, "positions": False})
    still = Trial.of("mtd/nln/epochs=4;train.moves=none")
    assert (still.learned, still.train) == ({"epochs": 4}, {"moves": "none"})
    with pytest.raises(SettingsError, match="epoch"):
        Trial.of("mtd/nln/epoch=4").key  # noqa: B018


def test_trials_are_told_apart_by_all_of_their_settings():
    """Not by what was asked: the preset may be another one tomorrow."""
    preset = Trial.of("mtd/nln").settings
    assert Trial.of(f"mtd/nln/epochs={preset['epochs']}").key == Trial.of("mtd/nln").key
    names = ("mtd/nln", "screw/nln", "mtd/nln/epochs=4", "mtd/nln/@epochs=4", "mtd/nln/train.moves=none", "mtd/alps")
    assert len({Trial.of(name).key for name in names}) == len(names)


def test_evidence_is_of_anomalies_by_kind_and_of_nuisances():
    found = trials.evidence(checked())
    assert found["kinds"] == {"graded_small": 1.0, "graded_wide": 0.5}
    assert found["graded"] == 0.75
    assert found["alarms"] == {"gain": 1.0}
    assert found["worth"] < found["graded"]  # good pictures under other light count against it


def test_the_table_says_what_differs_from_the_preset_of_today():
    kept = Trial.of("mtd/nln/epochs=4").settings
    del kept["loss"]  # as of a day before there was this setting: it was as its default
    entry = {**trials.evidence(checked()), "settings": kept, "seconds": 3.2}
    today, default = Trial.of("mtd/nln").settings["loss"], "entropy"
    wanted = "`epochs=4`" + ("" if today == default else f", `loss={default}`")
    text = trials.page({"mtd/nln/a": entry, "mtd/nln/b": {**entry, "settings": Trial.of("mtd/nln").settings}})
    assert f"| mtd | nln | {wanted} | 0.375 | 0.750 | 1.000 | - | 0.500 | - | 3 |" in text
    assert "| mtd | nln | nothing |" in text
    scored = trials.page({"mtd/nln/a": {**entry, "settings": Trial.of("mtd/nln").settings, "scored": {"share": 0.5}}})
    assert "`scored with share=0.5`" in scored
    still = trials.page({"mtd/nln/a": {**entry, "settings": Trial.of("mtd/nln").settings, "train": {"moves": "none"}}})
    assert "`train.moves=none`" in still


def test_settings_of_the_training_reach_the_training(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(trials, "KEPT", tmp_path)
    monkeypatch.setattr(trials, "train", lambda *given: asked.append(given[5]))
    trials.trained(Trial.of("mtd/nln/epochs=4;train.moves=none"))
    trials.trained(Trial.of("mtd/nln/train.moves=[turn_180, left_right]"))
    assert [(one.moves, one.detectors) for one in asked] == [
        ("none", {"nln": {"epochs": 4}}),
        (("turn_180", "left_right"), {"nln": {}}),
    ]
    with pytest.raises(SettingsError, match="move"):
        trials.trained(Trial.of("mtd/nln/train.move=none"))


def test_what_is_known_with_these_settings_is_not_measured_again(monkeypatch, tmp_path):
    asked: list[str] = []
    monkeypatch.setattr(trials, "RESULTS", tmp_path)
    monkeypatch.setattr(trials, "FILE", tmp_path / "trials.json")
    monkeypatch.setattr(trials, "record", lambda name, _: asked.append(name))
    entry = {**trials.evidence(checked()), "settings": Trial.of("mtd/nln").settings, "seconds": 1.0}
    trials.add(tmp_path / "trials.json", {Trial.of("mtd/nln").key: entry})
    trials.main(["mtd/nln", "mtd/nln/epochs=4"])
    assert asked == ["mtd/nln/epochs=4"]
    trials.main(["--again", "mtd/nln"])
    assert asked[1:] == ["mtd/nln"]
    assert "| mtd | nln | nothing |" in (tmp_path / "trials.md").read_text()


def test_the_mean_of_several_is_that_of_their_standardised_scores(monkeypatch, tmp_path):
    """One that lies a hundred times wider says no more; who was trained is not trained again."""
    monkeypatch.setattr(trials, "KEPT", tmp_path)
    company, trained = trials.wanted("mtd/nln + nln/epochs=4 + alps"), []

    def train(trial):
        trained.append(trial.detector)
        table, out = checked(), trial.folder / "model"
        out.mkdir(parents=True)
        if trial.detector == "alps":  # sees the anomaly that the others take for normal
            table["score"] = 100.0 * table["score"].where(table["kind"] != "graded_wide", 30.0)
        table.to_parquet(out / "check.parquet")
        trials.write_json(out / "history.json", [])

    monkeypatch.setattr(trials, "trained", train)
    monkeypatch.setattr(trials, "one_thread", lambda: None)
    trials.run("mtd/nln")
    trials.run("mtd/nln + nln/epochs=4 + alps")
    assert trained == ["nln", "nln", "alps"]
    entry = trials.read_json(company.folder / "entry.json")
    assert entry["kinds"] == {"graded_small": 1.0, "graded_wide": 1.0}
    assert [member["settings"].get("epochs") for member in entry["members"]][1] == 4
    assert company.key.startswith("mtd/nln+nln+alps/")
    assert company.key != trials.wanted("mtd/nln + nln/epochs=5 + alps").key
    text = trials.page({company.key: entry})
    assert "- (1) `full`, `with epochs=4`, `with full`" in text
    monkeypatch.setattr(trials, "code_hash", lambda: "another program")
    trials.run("mtd/nln + nln/epochs=4 + alps")
    assert trained == 2 * ["nln", "nln", "alps"]
