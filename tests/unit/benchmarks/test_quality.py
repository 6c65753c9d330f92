"""The arithmetic and tables of what tells how good detectors are; none of them trains on real data here."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from benchmarks.common.tables import sections
from benchmarks.production import accelerator
from benchmarks.quality import defects, floor, labelled, mended, methods, more
from components.core.settings import plain
from components.detectors.catalogue import CATALOGUE, create, settings_for
from components.training.data import FileImages, FitImages
from tests.figures import entry, overall


def test_an_untrained_detector_has_its_statistics_and_its_first_weights(product, store):
    paths = tuple(sorted((product / "train/good").glob("*.png"))[:8])
    data = FitImages(FileImages(paths, tuple(p.name for p in paths)), store)
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
    found = {"untrained": floor.held_against(labels, good, bad), "pixel_mean": floor.held_against(labels, good, good)}
    text = floor.page({"mtd/uniad": {"trained": 0.9, **found}}, "")
    assert "| +0.000 to +0.000 | itself untrained |\n" in text


def test_page_says_where_the_method_does_not_beat_its_floors():
    above, around = {"auroc": 0.5, "difference": [0.1, 0.2]}, {"auroc": 0.6, "difference": [-0.1, 0.1]}
    found = {
        "mtd/uniad": {"trained": 0.7, "untrained": above, "pixel_mean": above},
        "screw/sap2": {"trained": 0.6, "untrained": above, "pixel_mean": around},
    }
    good, weak = methods.floors("uniad", found), methods.floors("sap2", found)
    assert "| mtd | 0.700 | 0.500 | +0.100 to +0.200 | 0.500 | +0.100 to +0.200 | both |" in good
    assert "findings" not in good
    assert "| screw | 0.600 |" in weak
    assert "findings" in weak
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
    settings = [plain(settings_for(name.split("/")[1], "cpu", overrides)) for overrides in more.asked_of(name).values()]
    assert all(one != settings[0] for one in settings[1:])


def test_each_kind_of_defect_is_held_against_all_good_images():
    scores = pd.DataFrame({"image_id": list("abcdef"), "label": ["normal"] * 2 + ["anomalous"] * 4})
    scores["score"] = [0.1, 0.5, 0.9, 0.8, 0.3, 0.2]
    kinds = pd.Series({"c": "crack", "d": "crack", "e": "fray", "f": "fray"})
    assert defects.by_kind(scores, kinds) == {"crack": 1.0, "fray": 0.5}


def test_a_view_that_is_not_asked_about_keeps_its_section():
    assert sections("# Head\n\nabout\n\n## mtd\n\none\n\ntwo\n\n## screw\n\nthree\n") == {
        "mtd": "one\n\ntwo",
        "screw": "three",
    }


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
    assert "| mtd | 1.000 | 0.800 | 0.850 | 0.150 |" in floor.page({}, floor.brightness_text({"mtd": dark}))


def of_run(auroc, commit, pixel=None):
    overall = {"image": {"auroc": auroc, "interval": {"auroc": [auroc - 0.02, auroc + 0.02]}}, "pixel": pixel or {}}
    return {"overall": {**overall, "miss_rate": {"rate": 0.5}}, "commit": commit}


def test_before_and_after_has_what_was_measured_again_and_says_what_moved_it():
    old = {
        "mtd/nln": of_run(0.6, "a" * 40),
        "mtd/padim": of_run(0.9, "a" * 40),
        "mtd/msfi": of_run(0.7, "a" * 40),
    }
    before = {name: {"overall": mended.headline(e["overall"]), "commit": e["commit"]} for name, e in old.items()}
    after = {**old, "mtd/nln": of_run(0.75, "b" * 40, {"ap": 0.2}), "mtd/padim": of_run(0.9, "b" * 40)}
    text = mended.page(before, after)
    assert "| mtd | nln | 0.600 (0.580 to 0.620) | 0.750 (0.730 to 0.770) | +0.150 | no masks | 0.500 → 0.500 |" in text
    assert "| mtd | padim |" in text
    assert "| mtd | msfi |" not in text
    assert "- nln: its bank held patches of one column" in text
    assert "its preset `cpu` is another one" in " ".join(text.split())
    assert "- padim" not in text
    assert "commit bbbbbbb." in text


def test_faults_are_of_methods_there_are():
    assert {*mended.FAULTS, *mended.MOVED} - {"all"} <= set(CATALOGUE)
