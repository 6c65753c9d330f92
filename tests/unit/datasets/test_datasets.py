"""Adapters, manifest and splits."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.core.artefacts import read_json
from components.core.errors import DataError
from components.core.records import MANIFEST_COLUMNS
from components.datasets.adapters import adapter, folder_rows, mtd_rows
from components.datasets.manifest import measure
from components.datasets.settings import SplitSettings
from components.datasets.shift import shifts
from components.datasets.splits import split
from tests.conftest import tile


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def test_folder_with_good_images_alone(tmp_path):
    save(tmp_path / "train/good/a.png", tile(0))
    (row,) = folder_rows(tmp_path)
    assert (row.label, row.role, row.mask) == ("normal", "train", None)
    with pytest.raises(DataError, match="no folder train/good"):
        folder_rows(tmp_path / "train")


def test_mtd_protocol(tmp_path):
    for i in range(11):
        save(tmp_path / "MT_Free/Imgs" / f"exp{i:02d}.jpg", tile(i))
    save(tmp_path / "MT_Crack/Imgs/x.jpg", tile(50))
    save(tmp_path / "MT_Crack/Imgs/x.png", np.zeros((96, 96), np.uint8))
    rows = mtd_rows(tmp_path)
    assert [r.role for r in rows if r.label == "normal"].count("test") == 3  # indices 0, 5, 10
    (crack,) = [r for r in rows if r.label == "anomalous"]
    assert (crack.defect, crack.mask) == ("crack", "MT_Crack/Imgs/x.png")


def test_the_item_of_kolektor_sdd_is_the_group(tmp_path):
    for name in (
        "train/good/kos01_Part0",
        "train/good/kos01_Part7",
        "test/good/kos05_Part1",
        "test/defect/kos02_Part3",
    ):
        save(tmp_path / f"{name}.jpg", tile(0))
    rows = adapter("kolektor_sdd").rows(tmp_path)
    assert sorted((row.group, row.role, row.label) for row in rows) == [
        ("kos01", "train", "normal"),
        ("kos01", "train", "normal"),
        ("kos02", "test", "anomalous"),
        ("kos05", "test", "normal"),
    ]


def test_groups_that_belong_together_stay_on_one_side(tmp_path):
    """Pictures of one part are alike: on both sides they would make the threshold too low."""
    validated = tmp_path / "validated"
    validated.mkdir()
    names = [f"part{number // 4:02d}_{number % 4}.png" for number in range(48)]
    for number, name in enumerate(names):
        save(tmp_path / name, tile(number))
    table = manifest(tmp_path, dict.fromkeys(names, "train"))
    table.assign(group=[name[:6] for name in names]).to_parquet(validated / "clean.parquet")
    sides = {}
    for together in ("picture", "group"):
        out = split(validated, tmp_path, tmp_path / together, SplitSettings(together=together))
        found = pd.read_parquet(out / "split.parquet")
        sides[together] = found.groupby("group")["split"].nunique()
        assert set(found["split"]) == {"fit", "calibrate"}
    assert (sides["group"] == 1).all()
    assert (sides["picture"] > 1).any()


def test_measurements_follow_the_picture():
    dark, light = measure(np.full((40, 60, 3), 51, np.uint8)), measure(tile(0))
    assert (dark["width"], dark["height"]) == (60, 40)
    assert dark["brightness"] == pytest.approx(0.2, abs=1e-3)
    assert dark["contrast"] < 1e-6 < light["contrast"]
    assert dark["sharpness"] < light["sharpness"]


@pytest.fixture
def copies(tmp_path):
    """Thirty different tiles of one product and three copies of the first."""
    for i in range(30):
        save(tmp_path / f"{i}.png", tile(i, 160))
    first = Image.open(tmp_path / "0.png")
    first.save(tmp_path / "encoded.jpg", quality=97)
    first.resize((136, 136), Image.Resampling.BICUBIC).save(tmp_path / "resized.png")
    save(tmp_path / "shifted.png", np.roll(tile(0, 160), (3, -4), (0, 1)))
    return sorted(tmp_path.iterdir())


def manifest(folder, roles):
    rows = []
    for name, role in roles.items():
        record = dict.fromkeys(MANIFEST_COLUMNS) | measure(np.array(Image.open(folder / name).convert("RGB")))
        rows.append(
            record | {"image_id": name, "dataset": "d", "group": "g", "label": "normal", "role": role, "sha256": name}
        )
    return pd.DataFrame(rows)


def test_copies_of_a_test_image_leave_training_and_of_other_copies_one_stays(copies, tmp_path):
    folder, validated = copies[0].parent, tmp_path / "validated"
    validated.mkdir()
    roles = {p.name: "train" for p in copies} | {"0.png": "test"}
    manifest(folder, roles).to_parquet(validated / "clean.parquet")
    one = pd.read_parquet(split(validated, folder, tmp_path / "one", SplitSettings()) / "split.parquet")
    sides = one.set_index("image_id")["split"]
    assert sides["0.png"] == "test"
    assert set(sides[["encoded.jpg", "resized.png", "shifted.png"]]) == {"excluded"}
    assert one.set_index("image_id")["note"]["encoded.jpg"] == "copy of test image 0.png"
    assert set(sides[[f"{i}.png" for i in range(1, 30)]]) <= {"fit", "calibrate"}
    two = pd.read_parquet(split(validated, folder, tmp_path / "two", SplitSettings()) / "split.parquet")
    pd.testing.assert_frame_equal(one, two)
    roles["0.png"] = "train"
    manifest(folder, roles).to_parquet(validated / "clean.parquet")
    out = split(validated, folder, tmp_path / "3", SplitSettings())
    three = pd.read_parquet(out / "split.parquet").set_index("image_id")
    assert three["split"]["0.png"] in ("fit", "calibrate")
    assert set(three["note"][["encoded.jpg", "resized.png", "shifted.png"]]) == {"copy of 0.png"}
    assert read_json(out / "split.json")["copies"]["said"] == [
        "3 training images are copies of other training images and are left out"
    ]


def test_darker_good_test_images_are_told(tmp_path, caplog):
    dimmed = {f"{i:02d}.png": "test" if i % 3 == 0 else "train" for i in range(60)}
    for i, (name, role) in enumerate(dimmed.items()):
        save(tmp_path / name, (tile(i) * (0.7 if role == "test" else 1)).astype(np.uint8))
    table = manifest(tmp_path, dimmed)
    (tmp_path / "validated").mkdir()
    table.to_parquet(tmp_path / "validated/clean.parquet")
    log = read_json(split(tmp_path / "validated", tmp_path, tmp_path / "out", SplitSettings()) / "split.json")
    told = [line for line in log["shifted"] if "in brightness" in line]
    assert len(told) == 1
    assert told[0].startswith("g: good test images differ from good training images in brightness (median 0.")
    assert told[0] in caplog.text
    assert "take both in the same way" in caplog.text
    mixed = table.assign(split=["test" if i % 2 else "fit" for i in range(60)])
    assert not [line for line in shifts(mixed.assign(brightness=np.arange(60) // 2)) if "brightness" in line]
    assert shifts(mixed.assign(split="fit")) == []
    bad = table.assign(split=table["role"].replace("train", "fit"), label="anomalous")
    assert shifts(bad) == []  # what defects look like is not asked


def test_unknown_group_is_named(copies, tmp_path):
    manifest(copies[0].parent, {"0.png": "train"}).to_parquet(tmp_path / "clean.parquet")
    with pytest.raises(DataError, match="no group poly; known are \\['g'\\]"):
        split(tmp_path, copies[0].parent, tmp_path / "out", SplitSettings(groups=("poly",)))


def test_a_collected_folder_is_what_its_table_says(tmp_path):
    (tmp_path / "images.csv").write_text(
        "image_id,group,label,defect,role,mask\na.png,line-1,normal,,train,\nb.png,line-1,anomalous,reviewed,test,\n"
    )
    rows = adapter("collected").rows(tmp_path)
    assert [(r.image_id, r.group, r.label, r.role, r.mask) for r in rows] == [
        ("a.png", "line-1", "normal", "train", None),
        ("b.png", "line-1", "anomalous", "test", None),
    ]
    with pytest.raises(DataError, match="loupe retrain"):
        adapter("collected").rows(tmp_path / "elsewhere")
