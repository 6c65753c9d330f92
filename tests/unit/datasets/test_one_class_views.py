"""Views of classes: which are normal, what is left of the others, and slips that are told."""

from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from components.core.errors import DataError, SettingsError
from components.datasets.oneclass import one_class
from components.datasets.settings import SplitSettings
from components.datasets.splits import split
from components.pipeline import retraining
from components.pipeline.params import Params, View
from components.pipeline.stages import Stages
from tests.conftest import tile
from tests.unit.datasets.test_datasets import manifest

NAMES = [(kind, role, i) for kind in ("cat", "dog", "ship") for role in ("train", "test") for i in (0, 1)]
TABLE = pd.DataFrame(
    [(f"{role}/{kind}/{i}.png", kind, role) for kind, role, i in NAMES], columns=["image_id", "group", "role"]
).assign(label="normal", defect="", dataset="pets")


def sides(**asked):
    found = one_class(TABLE, SplitSettings(**asked), "pets")
    assert set(found["group"]) == {"pets"}  # no class is told to a detector or to the calibration by groups
    kept = found.assign(kind=found["image_id"].str.split("/").str[1])
    return {key: len(part) for key, part in kept.groupby(["kind", "label", "role", "defect"])}


def test_one_class_is_normal():
    assert sides(normal=("cat",)) == {
        ("cat", "normal", "train", ""): 2,
        ("cat", "normal", "test", ""): 2,
        ("dog", "anomalous", "test", "dog"): 2,
        ("ship", "anomalous", "test", "ship"): 2,
    }


def test_one_class_is_left_out():
    assert sides(anomalous=("cat",)) == {
        ("dog", "normal", "train", ""): 2,
        ("dog", "normal", "test", ""): 2,
        ("ship", "normal", "train", ""): 2,
        ("ship", "normal", "test", ""): 2,
        ("cat", "anomalous", "test", "cat"): 2,
    }


def test_other_views_are_left_alone():
    assert one_class(TABLE, SplitSettings(), "pets") is TABLE


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"normal": ("cat",), "anomalous": ("dog",)}, "name one of the two"),
        ({"normal": ("cow",)}, "has no class cow; known are cat, dog, ship"),
        ({"anomalous": ("cat", "dog", "ship")}, "leaves no class on one of the two sides"),
        ({"normal": ()}, "leaves no class on one of the two sides"),
        ({"normal": ("cat",), "together": "group"}, "split.together group is not for views of classes"),
    ],
)
def test_slips_are_told(asked, said):
    with pytest.raises(SettingsError, match=said):
        one_class(TABLE, SplitSettings(**asked), "pets")


def test_a_set_with_defects_has_no_classes():
    with pytest.raises(DataError, match="has defects of its own"):
        one_class(TABLE.assign(label=["anomalous", *["normal"] * 11]), SplitSettings(normal=("cat",)), "pets")


def test_a_view_says_its_classes_and_else_the_split_does():
    params = Params(
        data={},
        views={"a": View("pets", normal=("cat",)), "b": View("pets"), "c": View("pets", anomalous=("dog",))},
        split=SplitSettings(normal=("ship",)),
    )
    found = {name: Stages(params, name).split_settings for name in params.views}
    assert {name: (s.normal, s.anomalous) for name, s in found.items()} == {
        "a": (("cat",), None),
        "b": (("ship",), None),
        "c": (None, ("dog",)),
    }
    joined = Params(data={}, views={"a": View("pets"), "all": View(views=("a",), normal=("cat",))})
    with pytest.raises(SettingsError, match="or views to join"):
        joined.view("all")


def test_a_split_of_classes(tmp_path):
    """From the table that validation leaves to the sides: nothing of the other class is learned from."""
    names = [f"{role}/{kind}/{i}.png" for kind in ("cat", "dog") for role in ("train", "test") for i in range(12)]
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tile(number)).save(tmp_path / name)
    table = manifest(tmp_path, {name: name.partition("/")[0] for name in names})
    kinds = table["image_id"].str.split("/").str[1]
    (tmp_path / "validated").mkdir()
    table.assign(group=kinds).to_parquet(tmp_path / "validated/clean.parquet")
    out = split(tmp_path / "validated", tmp_path, tmp_path / "split", SplitSettings(normal=("cat",)))
    found = pd.read_parquet(out / "split.parquet")
    kinds = found["image_id"].str.split("/").str[1]
    assert set(kinds[found["split"] != "test"]) == {"cat"}
    assert set(found["split"]) == {"fit", "calibrate", "test"}
    tested = found[found["split"] == "test"]
    assert tested.groupby(["label", "defect"]).size().to_dict() == {("anomalous", "dog"): 12, ("normal", ""): 12}


@pytest.mark.parametrize(
    "asked", [{"views": {"pet": View("pets", normal=("cat",))}}, {"split": SplitSettings(normal=("cat",))}]
)
def test_retraining_is_not_for_views_of_classes(monkeypatch, asked):
    """Its new data version would have no classes to choose by."""
    known = Params(**{"data": {}, "views": {"pet": View("pets")}, **asked})
    registry = SimpleNamespace(champion=lambda name: "1", tags=lambda name, version: {})  # noqa: ARG005
    monkeypatch.setattr(retraining, "Registry", lambda settings: registry)  # noqa: ARG005
    verdict = SimpleNamespace(model="pet", id="x")
    with pytest.raises(SettingsError, match="pet is a view of classes; retraining is for a view of one data set"):
        retraining.Retraining(known, verdict).write_version()
