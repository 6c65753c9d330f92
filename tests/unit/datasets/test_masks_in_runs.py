"""Masks on their way through the manifest and what follows."""

import numpy as np
import pandas as pd
import pytest

from components.core.artefacts import read_json
from components.core.errors import DataError
from components.datasets.manifest import make_manifest
from components.datasets.settings import DataSettings, SplitSettings, ValidationSettings
from components.datasets.splits import _move_labelled
from components.datasets.validation.validate import validate
from components.pictures.decoding import Decoding
from components.pictures.roi import written
from components.retraining.dataset import base_rows
from tests.conftest import tile
from tests.unit.pictures.test_masks import save


@pytest.fixture
def part(tmp_path):
    root = tmp_path / "part"
    for i in range(6):
        save(root / f"train/good/{i}.png", tile(i, 64))
    for i, name in enumerate(("right", "empty", "turned", "small")):
        mask = np.zeros((64, 64), np.uint8)
        mask[10:20, 10:30] = 255 if name != "empty" else 0
        mask = ~mask if name == "turned" else mask[:32] if name == "small" else mask
        save(root / f"test/hole/{name}.png", tile(50 + i, 64))
        save(root / f"ground_truth/hole/{name}_mask.png", mask)
    return root


def test_pictures_whose_mask_does_not_tell_stay_and_are_named(part, tmp_path, caplog):
    make_manifest(part, tmp_path / "manifest", DataSettings("folder", "part"))
    out = validate(tmp_path / "manifest", part, tmp_path / "out", ValidationSettings(min_train_normals=5))
    said = read_json(out / "summary.json")["masks"]
    assert said["used"] == 1
    assert {why: names[0] for why, names in said["unknown"].items()} == {
        "empty mask": "test/hole/empty.png",
        "looks inverted": "test/hole/turned.png",
        "size differs from the picture": "test/hole/small.png",
    }
    assert len(pd.read_parquet(out / "clean.parquet")) == 10
    assert "of 1 images the mask does not tell: looks inverted (first test/hole/turned.png)" in caplog.text
    assert "--set data.masks=inverted" in caplog.text


def test_only_a_mask_that_tells_moves_to_fit(part, tmp_path):
    table = pd.read_parquet(make_manifest(part, tmp_path / "m", DataSettings("folder", "part")) / "manifest.parquet")
    table["split"], table["note"] = table["role"].replace("train", "fit"), None
    moved = table.copy()
    _move_labelled(moved, part, 1, set())
    assert list(moved[moved["note"].notna()]["image_id"]) == ["test/hole/right.png"]
    with pytest.raises(DataError, match="1 anomalous test images have a mask"):
        _move_labelled(table.copy(), part, 2, set())
    elsewhere = np.zeros((64, 64), bool)
    elsewhere[30:] = True
    with pytest.raises(DataError, match="0 anomalous test images have a mask"):
        _move_labelled(table.copy(), part, 1, set(), Decoding(roi=written(elsewhere, (64, 64))))
    old = table.drop(columns="mask_rule")  # as an older version validated it
    _move_labelled(old, part, SplitSettings().labelled, set())


def test_a_retraining_carries_how_masks_are_read(part):
    settings = DataSettings("folder", "part", masks="marked")
    rules = {row.image_id: row.mask_rule for row in base_rows(part, settings, None)}
    assert rules["test/hole/right.png"] == rules["test/hole/turned.png"] == "as is"
    assert rules["test/hole/empty.png"] == "unknown: empty mask"
    assert rules["train/good/0.png"] is None
