"""The benchmarks' own arithmetic and tables; none of them trains on real data here."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks import accelerator, defects, floor, labelled, mechanisms, methods, more, table
from benchmarks.studies import STUDIES, Mechanism, label, studied
from benchmarks.variant import trained
from components.backbones.features import FeatureStore
from components.core.settings import plain
from components.detectors.catalogue import create, settings_for
from components.training.data import FileImages, FitImages

STUDIED = sorted(studied())


def overall(auroc: float, masks: bool = True) -> dict:
    pixel = {"auroc": 0.9, "ap": 0.4, "aupro": 0.8} if masks else {"not_available": "no masks"}
    image = {"auroc": auroc, "ap": 0.95, "f1_max": 0.9, "interval": {"auroc": [auroc - 0.1, auroc + 0.1]}}
    return {"image": image, "pixel": pixel, "false_alarm_rate": {"rate": 0.05}, "miss_rate": {"rate": 0.2}}


def entry(auroc: float = 0.8, **more: object) -> dict:
    """As benchmarks.fit writes it now."""
    history = [{"phase": "one", "epoch": i, "loss": 2.0 - i, "synthetic_auroc": 0.7} for i in range(2)]
    history += [{"phase": "two", "epoch": 0, "loss": 5.0}, {"phase": "last", "epoch": 0, "synthetic_auroc": 0.7}]
    return {
        "overall": overall(auroc), "seconds": {"train": 80.0, "drawing": 8.0, "steps": 40.0, "choosing": 16.0},
        "features": {"seconds_spent": 8.0}, "peak_memory_mb": 1800, "parameters": {"learned": 0.56, "frozen": 3.0},
        "state_mb": 21.9, "onnx": {"ms": 25.7, "bare_ms": 16.0, "ratio": 1.61}, "history": history, **more,
    }  # fmt: skip


def old_entry() -> dict:
    """As it was written before there was a time of the graph."""
    return {
        "overall": overall(0.9, masks=False), "seconds": {"train": 54.0, "whole fit command": 135.0},
        "peak_memory_mb": 2786, "history": [],
    }  # fmt: skip


def test_new_and_old_entries_fill_the_same_columns():
    new, old = table.cells("mtd", "uniad", entry()), table.cells("mtd", "uniad", old_entry())
    assert len(new) == len(old) == len(table.HEAD)
    shown, before = (dict(zip(table.HEAD, line, strict=True)) for line in (new, old))
    assert shown["image AUROC (95 %)"] == "0.800 (0.700 to 0.900)"
    assert (shown["of that features s"], shown["over bare backbone"], shown["learned M"]) == ("8", "1.61", "0.56")
    assert (before["train s"], before["ONNX ms"], before["state MB"]) == ("54", "-", "-")
    assert before["pixel AP"] == "no masks"


def test_other_seeds_have_a_table_of_their_own():
    found = {"mtd/uniad": entry(0.8), "mtd/uniad@1": entry(0.7), "mtd/uniad@2": entry(0.9), "mtd/sap2": old_entry()}
    assert [line[:2] for line in table.rows(found)] == [["mtd", "sap2"], ["mtd", "uniad"]]
    (line,) = table.seed_rows(found)
    assert line[:4] == ["mtd", "uniad", "3", "0.800 (0.700 to 0.900)"]


def test_curves_take_stages_that_choose_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(table, "RESULTS", tmp_path)
    table.curves({"mtd/uniad": entry(), "screw/uniad": entry(), "mtd/fastflow": entry(), "mtd/sap2": old_entry()})
    assert (tmp_path / "curves.png").stat().st_size > 5000


def test_page_has_the_method_s_rows_seeds_and_shares():
    found = {"mtd/uniad": entry(0.8), "mtd/uniad@1": entry(0.7), "screw/uniad": old_entry(), "mtd/sap2": entry(0.5)}
    text = methods.measured("uniad", found)
    assert "sap2" not in text
    assert "0.500 (" not in text
    assert "| mtd | 2 | 0.750 (0.700 to 0.800) |" in text
    assert "- mtd, 80 s: features 10%, drawing 10%, steps 50%, choosing 20%, the rest 10%" in text
    assert "- screw" not in text
    assert methods.measured("adtr", found) == "## Measured here\nNot measured yet.\n"


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.05, "helps"),
        (-0.05, -0.01, "does not help here"),
        (0.0, 0.0, "does not help here"),
        (-0.01, 0.05, "within the noise"),
    ],
)
def test_verdict_follows_the_interval_of_the_difference(low, high, said):
    assert mechanisms.verdict(low, high) == said


def test_paired_interval_of_scores():
    rng = np.random.default_rng(0)
    labels = np.arange(200) < 100
    good, noise = labels + 0.5 * rng.normal(size=(2, 200)), rng.normal(size=(2, 200))
    assert mechanisms.paired(labels, good, good) == (0.0, 0.0)
    low, high = mechanisms.paired(labels, good, noise)
    assert 0.2 < low < high < 0.6
    assert mechanisms.paired(labels, noise, good)[1] < 0


def scored(monkeypatch, folder, figures: dict[str, float]) -> None:
    """Made-up runs of uniad on screw, by label@seed: the AUROC told, and scores that all are the same."""
    monkeypatch.setattr(mechanisms, "KEPT", folder)
    monkeypatch.setattr(mechanisms, "RESULTS", folder)
    labels = SimpleNamespace(labels=lambda: np.arange(20) < 10)
    monkeypatch.setattr(mechanisms, "View", SimpleNamespace(of=lambda _: labels))
    runs = {f"screw/uniad/{k}": {"auroc": v, "pixel_ap": None} for k, v in figures.items()}
    for name in runs:
        np.save(mechanisms.file(name, "npy"), np.arange(20.0)[::-1])
    (folder / "mechanisms.json").write_text(json.dumps({"runs": runs}))


def test_one_seed_is_held_against_the_range_over_seeds(monkeypatch, tmp_path):
    figures = {"full@0": 0.90, "full@1": 0.80, "full@2": 0.85, "jitter=0.0@0": 0.85}
    scored(monkeypatch, tmp_path, figures)
    row = mechanisms.compared("uniad", "screw", Mechanism("jitter", {"jitter": 0.0}))
    assert row["seeds"] == [0]
    assert row["interval"] == pytest.approx([-0.05, 0.15])
    assert row["verdict"] == "within the noise"


def test_several_seeds_must_agree(monkeypatch, tmp_path):
    figures = {f"full@{s}": 0.9 for s in range(3)} | {f"jitter=0.0@{s}": v for s, v in enumerate((0.8, 0.85, 0.91))}
    scored(monkeypatch, tmp_path, figures)
    row = mechanisms.compared("uniad", "screw", Mechanism("jitter", {"jitter": 0.0}, main=True))
    assert row["difference"] == pytest.approx(0.14 / 3)
    assert row["interval"] == pytest.approx([-0.01, 0.1])
    assert row["verdict"] == "within the noise"


def test_mechanism_table_says_what_does_not_help(monkeypatch, tmp_path):
    scored(monkeypatch, tmp_path, {"full@0": 0.9, "jitter=0.0@0": 0.9, "window=0@0": 0.7})
    mechanisms.write()
    study = json.loads((tmp_path / "mechanisms.json").read_text())["studies"]["uniad"]
    study["schedules"] = {"screw": {"epochs": 9}, "mtd": {"epochs": 9}}
    text = methods.mechanisms("uniad", {"uniad": study})
    assert "| neighbour mask | screw | 1 | 0.900 | 0.700 | +0.200 (+0.000 to +0.200) |" in text
    assert "| jitter | screw | 1 | 0.900 | 0.900 | +0.000 (+0.000 to +0.000) | - | - |" in text
    assert "Does not help here: jitter (screw)" in text
    assert "preset `cpu`, on screw and mtd `epochs=9`." in text
    assert methods.mechanisms("sap2", {"uniad": study}) == ""
    assert "## uniad" in (tmp_path / "mechanisms.md").read_text()


@pytest.mark.parametrize("name", STUDIED)
def test_variants_build_and_differ(name):
    for view in STUDIES[name].views:
        all_of = list(mechanisms.trainings(name, view))
        known = {k: plain(t.settings(o)) for t in all_of for k, o in t.variants()}
        assert len(known) == sum(len(t.scored) for t in all_of)
        for mechanism in STUDIES[name].mechanisms:
            on, off = (mechanisms.key(name, view, side, 0) for side in mechanism.sides())
            assert known[on] != known[off], f"{name}: {mechanism.what} is not on"
            seeds = [s for s in mechanisms.SEEDS if mechanisms.key(name, view, mechanism.sides()[1], s) in known]
            assert seeds == ([0, 1, 2] if mechanism.main or mechanism.behind else [0])
        assert any(mechanism.main for mechanism in STUDIES[name].mechanisms)


# One per method, its first: training all of them would take minutes.
REUSED = {n: next((m for m in STUDIES[n].mechanisms if m.behind), None) for n in STUDIED}
REUSED = [(n, m) for n, m in REUSED.items() if m]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mechanism"), REUSED, ids=[f"{n}-{label(m.off)}" for n, m in REUSED])
def test_a_reused_model_scores_as_one_trained_so(name, mechanism, product, tmp_path):
    """What is scored from a state of the full training is exactly what a training with the mechanism off gives."""
    paths = tuple(sorted((product / "train/good").glob("*.png"))[:8])
    data = FitImages(FileImages(paths, tuple(p.name for p in paths)), FeatureStore(tmp_path))
    on, off = (settings_for(name, "tiny", tiny(name, side)) for side in ({}, mechanism.sides()[1]))
    found = []

    def score(detector: torch.nn.Module) -> None:
        with torch.inference_mode():
            table = detector.inputs(data)
            found.extend(detector.eval().score(table.take(range(4)), (64, 64)))

    def behind(stage: str) -> None:
        if stage == mechanism.behind:
            detector.settings = off
            score(detector)
            detector.settings = on

    torch.manual_seed(0)
    detector = create(name, on)
    trained(detector, data, 0, lambda _: 0.5, behind)
    torch.manual_seed(0)
    alone = create(name, off)
    trained(alone, data, 0, lambda _: 0.5)
    score(alone)
    torch.testing.assert_close(found[:2], found[2:], rtol=1e-5, atol=1e-6)


def tiny(name: str, overrides: dict) -> dict:
    """The study's switches over the tiny preset, without its schedule."""
    switches = {k for m in STUDIES[name].mechanisms for k in m.off}
    known = {k: v for k, v in STUDIES[name].schedule.items() if k in switches and not k.endswith("epochs")}
    return {**known, **overrides}


def test_an_untrained_detector_has_its_statistics_and_its_first_weights(product, tmp_path):
    paths = tuple(sorted((product / "train/good").glob("*.png"))[:8])
    data = FitImages(FileImages(paths, tuple(p.name for p in paths)), FeatureStore(tmp_path))
    torch.manual_seed(0)
    made = create("uniad", settings_for("uniad", "tiny"))
    first = [p.detach().clone() for p in made.parameters()]
    floor.closed_form(made, data)
    assert made.standardise.std.std() > 0
    assert all(torch.equal(a, b) for a, b in zip(first, made.parameters(), strict=True))


def test_floor_names_what_is_beaten():
    labels = np.arange(100) < 50
    rng = np.random.default_rng(0)
    good, bad = labels + 0.3 * rng.normal(size=100), rng.normal(size=100)
    found = {"untrained": floor.beside(labels, good, bad), "pixel_mean": floor.beside(labels, good, good)}
    text = floor.page({"mtd/uniad": {"trained": 0.9, **found}}, {})
    assert "| +0.000 to +0.000 | itself untrained |\n" in text


def test_page_says_where_the_method_does_not_beat_its_floors():
    above, around = {"auroc": 0.5, "difference": [0.1, 0.2]}, {"auroc": 0.6, "difference": [-0.1, 0.1]}
    found = {
        "mtd/uniad": {"trained": 0.7, "untrained": above, "pixel_mean": above},
        "screw/sap2": {"trained": 0.6, "untrained": above, "pixel_mean": around},
    }
    good, weak = methods.floors("uniad", found), methods.floors("sap2", found)
    assert "| mtd | 0.700 | 0.500 | +0.100 to +0.200 | 0.500 | +0.100 to +0.200 | itself untrained and" in good
    assert "weak results" not in good
    assert "| screw | 0.600 |" in weak
    assert "weak results" in weak
    assert methods.floors("pni", found) == ""


def test_what_more_buys_is_told_beside_the_preset(monkeypatch, tmp_path):
    monkeypatch.setattr(more, "RESULTS", tmp_path)
    runs = {"full": 0.8, "epochs=36": 0.9}
    history = [{"phase": "one", "epoch": 0, "loss": 1.0}, {"phase": "one", "epoch": 1, "loss": 0.5}]
    history[1]["synthetic_auroc"] = 0.85
    found = {
        what: {"test": {"auroc": v, "interval": [v - 0.1, v + 0.1], "pixel_ap": None}, "history": history, "seconds": 9}
        for what, v in runs.items()
    }
    text = more.page({"mtd/uniad": found})
    assert "| mtd | uniad | nothing | 0.800 (0.700 to 0.900) | no masks | 0.850 | 9 |" in text
    assert "| mtd | uniad | `epochs=36` | 0.900" in text
    more.draw({"mtd/uniad": found})
    assert (tmp_path / "more.png").stat().st_size > 5000


def test_a_training_on_a_gpu_stands_beside_the_one_on_the_cpu(monkeypatch, tmp_path):
    (tmp_path / "fit.json").write_text(json.dumps({"mtd/prn": entry()}))
    monkeypatch.setattr(accelerator, "RESULTS", tmp_path)
    test = {"auroc": 0.8, "interval": [0.7, 0.9], "pixel_ap": 0.2}
    known = {"test": test, "history": entry()["history"], "synthetic_pixel_ap": 0.5, "wall": 9.4, "hardware": "Card"}
    text = accelerator.page({"mtd/prn/full": known, "mtd/prn/epochs=9": known})
    assert "trained on Card." in text
    assert "| mtd | prn | nothing | 0.800 (0.700 to 0.900) | 0.200 | 0.700 | 0.500 | 9 | 80 |" in text
    assert "| `epochs=9` | 0.800 (0.700 to 0.900) | 0.200 | 0.700 | 0.500 | 9 | - |" in text


def test_labelled_anomalies_stand_beside_normals_alone():
    one, other = ({**overall(v), "n": {"normal": 3, "anomalous": 4}} for v in (0.7, 0.8))
    text = labelled.page({"mtd/20": {"with": other, "without": one}})
    assert "| mtd | normals | 7 | 0.700 (0.600 to 0.800) | 0.900 | 0.400 | 0.800 | 0.200 |" in text
    assert "| mtd | normals and 20 anomalies | 7 | 0.800 (0.700 to 0.900) |" in text


def test_more_is_measured_again_where_settings_changed(monkeypatch, tmp_path):
    monkeypatch.setattr(more, "RESULTS", tmp_path)
    assert not more.stands("mtd/uniad/full")
    known = {"full": {"settings": more.identity("mtd/uniad/full")}, "epochs=36": {"settings": "of another day"}}
    (tmp_path / "more.json").write_text(json.dumps({"mtd/uniad": known}))
    assert more.stands("mtd/uniad/full")
    assert not more.stands("mtd/uniad/epochs=36")


@pytest.mark.parametrize("name", more.ASKED)
def test_more_is_asked_of_settings_that_exist(name):
    settings = [plain(settings_for(name.split("/")[1], "cpu", overrides)) for overrides in more.variants(name).values()]
    assert all(one != settings[0] for one in settings[1:])


def test_each_kind_of_defect_is_held_against_all_good_images():
    scores = pd.DataFrame({"image_id": list("abcdef"), "label": ["normal"] * 2 + ["anomalous"] * 4})
    scores["score"] = [0.1, 0.5, 0.9, 0.8, 0.3, 0.2]
    kinds = pd.Series({"c": "crack", "d": "crack", "e": "fray", "f": "fray"})
    assert defects.by_kind(scores, kinds) == {"crack": 1.0, "fray": 0.5}


def test_a_view_that_is_not_asked_about_keeps_its_section():
    assert defects.sections("# Head\n\nabout\n\n## mtd\n\none\n\ntwo\n\n## screw\n\nthree\n") == {
        "mtd": "one\n\ntwo", "screw": "three",
    }  # fmt: skip


def test_maps_of_each_kind_of_defect_are_held_against_those_of_all_good_images():
    masks = np.zeros((3, 4, 4), bool)
    masks[1:, 0] = True
    maps = np.stack([np.zeros((4, 4)), masks[1].astype(float), 1.0 - masks[2]])
    found = defects.pixels_by_kind(maps, masks, np.array(["", "crack", "fray"]))
    assert found["crack"] == 1.0
    assert found["fray"] < 0.2


def test_brightness_is_told_beside_the_floors():
    dark = floor.brightness(np.array([0.1, 0.2, 0.8, 0.9]), np.array([True, True, False, False]), np.array([0.7, 0.9]))
    assert dark == {"auroc_of_darkness": 1.0, "fit": 0.8, "good": 0.85, "defective": 0.15}
    assert "| mtd | 1.000 | 0.800 | 0.850 | 0.150 |" in floor.page({}, {"mtd": dark})
