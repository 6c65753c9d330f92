"""The one-class benchmark: which cells there are, what a cell looks at, what is run again, and its page."""

import numpy as np
import pytest

from benchmarks.quality import oneclass
from components.datasets.sets.classes import digits_fetch
from components.detectors.catalogue import settings_for


@pytest.fixture
def digits(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    digits_fetch(tmp_path / "data/digits")
    monkeypatch.chdir(tmp_path)
    oneclass.listed.cache_clear()
    yield tmp_path
    oneclass.listed.cache_clear()


def test_cells_are_every_class_of_every_method():
    every = oneclass.cells([])
    assert len(every) == len(set(every)) == 2 * (5 * 10 + 4 + 10)
    assert oneclass.cells(["digits/one/sap2"]) == [f"digits/one/sap2/{number}" for number in range(10)]
    assert oneclass.cells(["digits/half"]) == [f"digits/half/uniad/{group}" for group in oneclass.HALVES]


@pytest.mark.parametrize("method", oneclass.SETTINGS)
def test_settings_are_those_of_the_methods(method):
    assert settings_for(method, "cpu", oneclass.SETTINGS[method])


@pytest.mark.parametrize(
    ("cell", "classes", "normal"),
    [
        ("one/nln/3", ["3"], {"3"}),
        ("rest/nln/3", ["3"], set("012456789")),
        ("half/uniad/13579", [*"13579"], set("13579")),
    ],
)
@pytest.mark.usefixtures("digits")
def test_a_cell_learns_from_its_normal_classes_alone(cell, classes, normal):
    table, named = oneclass.chosen(f"digits/{cell}")
    kind = table["image_id"].str.split("/").str[1]
    assert named == classes
    assert set(kind[table["role"] == "train"]) == normal
    assert set(table["label"][table["role"] == "train"]) == {"normal"}
    tested = table["role"] == "test"
    assert tested.sum() == 364  # all of them, whatever is normal
    assert set(kind[tested & (table["label"] == "normal")]) == normal


def test_what_is_measured_with_other_settings_is_measured_again(monkeypatch):
    name = "digits/one/sap2/0"
    known = {name: {"settings": oneclass.identity(name)}}
    assert oneclass.is_measured(known, name)
    assert not oneclass.is_measured(known, "digits/one/sap2/1")
    monkeypatch.setitem(oneclass.SETTINGS, "sap2", {"backbone.size": 96})
    assert not oneclass.is_measured(known, name)


def cell(auroc, classes, **more):
    return {"auroc": auroc, "classes": classes, "seconds": 30.0, "settings": "", "commit": "0123abcd", **more}


def test_the_page_shows_classes_means_and_what_is_published():
    known = {
        "cifar10_subset/one/sap2/0": cell(0.9, ["airplane"]),
        "cifar10_subset/one/sap2/1": cell(0.8, ["automobile"]),
        "cifar10_subset/one/nln/1": cell(0.6, ["automobile"], plain=0.55),
        "cifar10_subset/half/uniad/01234": cell(0.7, ["airplane", "automobile", "bird", "cat", "deer"]),
    }
    text = oneclass.page(known)
    assert "| automobile | 60.0 | 55.0 | 80.0 | - | - | - |" in text
    assert "| mean | 60.0 (1) | 55.0 (1) | 85.0 (2) | - | - | - |" in text
    assert "| airplane, automobile, bird, cat, deer | 70.0 |" in text
    assert "| sap2 | one | CIFAR-10 97.0 (CAP 97.0) | - | 85.0 (2) |" in text
    assert "- sap2, one: ResNet-152 at 224 pixels" in text
    assert "| its autoencoder | one | not found | - | 55.0 (1) |" in text
    assert "Measured: 0 of 128 cells" in text  # with other settings than today's
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.usefixtures("digits")
def test_one_cell_from_pictures_to_its_figures(monkeypatch):
    """NLN on one digit, one epoch: the AUROC beside that of its own autoencoder."""
    few = {"epochs": 1, "width": 4, "latent": 4, "bank_size": 64, "size": 16, "patch": 16, "stride": 16}
    monkeypatch.setitem(oneclass.SETTINGS, "nln", {**oneclass.SETTINGS["nln"], **few})
    entry = oneclass.measured("digits/one/nln/0")
    assert (entry["fit"], entry["test normals"], entry["anomalous"]) == (142, 36, 328)
    assert entry["classes"] == ["0"]
    assert 0 <= entry["auroc"] <= 1
    assert entry["plain"] != entry["auroc"]
    assert np.isfinite(entry["seconds"])
