"""Video sets in their own layouts, their sides by clips, and what is made of them to check with."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from components.core.errors import DataError, SettingsError
from components.datasets.adapters import ADAPTERS
from components.datasets.blocks import GAP, clip_sides, equal_files
from components.datasets.folds import write_folds
from components.datasets.loading import read_decoding, read_split
from components.datasets.manifest import make_manifest
from components.datasets.settings import DataSettings, SplitSettings
from components.datasets.splits import join, share_of, split
from components.datasets.videos import clip_of
from tests.clips import frame, write_clip, write_set


def said(rows) -> dict[str, tuple[str, str, str | None]]:
    return {row.image_id: (row.role, row.label, row.mask) for row in rows}


def test_the_layout_of_clips(tmp_path):
    write_set(tmp_path / "walk", train=(3, 2), test=4, anomalous=(2, 3))
    found = ADAPTERS["clips"].rows(tmp_path / "walk")
    assert [row.role for row in found] == ["train"] * 5 + ["test"] * 4
    assert {row.group for row in found} == {"walk"}
    known = said(found)
    assert known["training/frames/01/000.png"] == ("train", "normal", None)
    assert known["testing/frames/01/001.png"] == ("test", "normal", None)
    assert known["testing/frames/01/002.png"] == ("test", "anomalous", "testing/masks/01/002.png")


def test_ped2_as_it_is_published(tmp_path):
    write_clip(tmp_path / "Train/Train001", 3, suffix=".tif", first=1)
    write_clip(tmp_path / "Test/Test001", 5, suffix=".tif", first=1)
    write_clip(tmp_path / "Test/Test001_gt", 5, suffix=".bmp", first=1)
    write_clip(tmp_path / "Test/Test002", 3, suffix=".tif", first=1)
    (tmp_path / "Test/UCSDped2.m").write_text(
        "TestVideoFile = {};\nTestVideoFile{end+1}.gt_frame = [2:3, 5];\nTestVideoFile{end+1}.gt_frame = [1:3];\n"
    )
    found = said(ADAPTERS["ucsd_ped2"].rows(tmp_path))
    labels = [found[f"Test/Test001/00{n}.tif"][1] for n in range(1, 6)]
    assert labels == ["normal", "anomalous", "anomalous", "normal", "anomalous"]
    assert found["Test/Test001/002.tif"][2] == "Test/Test001_gt/002.bmp"
    assert {found[f"Test/Test002/00{n}.tif"][1] for n in range(1, 4)} == {"anomalous"}
    assert found["Train/Train001/001.tif"] == ("train", "normal", None)
    assert not any("_gt/" in name for name in found)
    assert "personal data" in ADAPTERS["ucsd_ped2"].licence


@pytest.mark.parametrize("how", ["array", "volume", "json"])
def test_avenue_by_each_of_its_truths(tmp_path, how):
    write_clip(tmp_path / "training/frames/01", 2)
    write_clip(tmp_path / "testing/frames/01", 3)
    write_clip(tmp_path / "testing/frames/02", 2)
    truth = {"01": [0, 1, 1], "02": [0, 1]}
    if how == "array":
        np.save(tmp_path / "frame_labels_avenue.npy", np.array([[0, 1, 1, 0, 1]]))
    elif how == "json":
        (tmp_path / "frame_labels.json").write_text(json.dumps(truth))
    else:
        (tmp_path / "testing_label_mask").mkdir()
        for clip, values in truth.items():
            volume = np.empty((1, len(values)), object)
            for i, value in enumerate(values):
                volume[0, i] = np.full((4, 4), value, np.uint8)
            savemat(tmp_path / f"testing_label_mask/{int(clip)}_label.mat", {"volLabel": volume})
    found = ADAPTERS["cuhk_avenue"].rows(tmp_path)
    assert [row.label for row in found if row.role == "test"] == [
        "normal", "anomalous", "anomalous", "normal", "anomalous",
    ]  # fmt: skip


def test_a_scene_of_shanghaitech_is_a_group(tmp_path):
    write_clip(tmp_path / "training/frames/01_001", 2)
    write_clip(tmp_path / "training/frames/02_001", 2)
    write_clip(tmp_path / "testing/frames/02_0014", 2)
    (tmp_path / "testing/test_frame_mask").mkdir()
    np.save(tmp_path / "testing/test_frame_mask/02_0014.npy", np.array([0, 1]))
    found = ADAPTERS["shanghaitech"].rows(tmp_path)
    assert [(row.group, row.label) for row in found] == [
        ("01", "normal"), ("01", "normal"), ("02", "normal"), ("02", "normal"), ("02", "normal"), ("02", "anomalous"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("break_it", "told"),
    [
        (lambda root: (root / "frame_labels.json").write_text('{"01": [0, 1]}'), "4 frames and 2 labels"),
        (lambda root: (root / "frame_labels.json").write_text("{}"), "has no labels"),
        (lambda root: (root / "training").rename(root / "other"), "loupe frames"),
    ],
)
def test_what_does_not_fit_is_told(tmp_path, break_it, told):
    write_set(tmp_path / "walk", train=(3,), test=4, anomalous=(2,))
    break_it(tmp_path / "walk")
    with pytest.raises(DataError, match=told):
        ADAPTERS["clips"].rows(tmp_path / "walk")


def test_labels_of_ped2_and_of_arrays_must_be_of_these_clips(tmp_path):
    write_clip(tmp_path / "Train/Train001", 3)
    write_clip(tmp_path / "Test/Test001", 3)
    with pytest.raises(DataError, match=r"no UCSDped2\.m"):
        ADAPTERS["ucsd_ped2"].rows(tmp_path)
    (tmp_path / "Test/UCSDped2.m").write_text("x.gt_frame = [2:9];")
    with pytest.raises(DataError, match="frame 4 is labelled"):
        ADAPTERS["ucsd_ped2"].rows(tmp_path)
    (tmp_path / "Test/UCSDped2.m").write_text("")
    with pytest.raises(DataError, match="labels 0 clips of 1"):
        ADAPTERS["ucsd_ped2"].rows(tmp_path)
    np.save(tmp_path / "frame_labels_avenue.npy", np.zeros(2))
    write_clip(tmp_path / "testing/frames/01", 3)
    with pytest.raises(DataError, match="2 labels"):
        ADAPTERS["cuhk_avenue"].rows(tmp_path)


def table_of(*clips: tuple[str, int], role: str = "train", group: str = "a") -> pd.DataFrame:
    ids = [f"training/frames/{name}/{i:03}.png" for name, count in clips for i in range(count)]
    return pd.DataFrame({"image_id": ids, "group": group, "role": role, "sha256": ids})


def test_whole_clips_calibrate():
    table = table_of(*((f"{i:02}", 30) for i in range(10)))
    sides, notes = clip_sides(table, 0.2, share_of)
    of = pd.Series(sides).groupby(table["image_id"].map(clip_of)).agg(set)
    assert all(len(found) == 1 for found in of)
    assert sum(found == {"calibrate"} for found in of) == 2
    assert notes == [None] * 300


@pytest.mark.parametrize("count", [2, 3])
def test_of_few_clips_one_calibrates_and_one_is_left_to_learn_from(count):
    sides, _ = clip_sides(table_of(*((f"{i:02}", 5) for i in range(count))), 0.2, share_of)
    assert sides.count("calibrate") == 5


def test_of_a_lone_clip_the_last_frames_calibrate_behind_a_gap():
    sides, notes = clip_sides(table_of(("01", 100)), 0.2, share_of)
    assert sides == ["fit"] * (80 - GAP) + ["excluded"] * GAP + ["calibrate"] * 20
    assert [note is not None for note in notes] == [side == "excluded" for side in sides]


def test_files_of_test_frames_are_not_learned():
    table = pd.concat([table_of(("01", 3)), table_of(("02", 2), role="test")], ignore_index=True)
    table.loc[1, "sha256"] = table.loc[4, "sha256"]
    assert equal_files(table).same == [0, 4, 2, 3, 4]


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    root = tmp_path_factory.mktemp("set") / "walk"
    return write_set(root, train=(12, 12, 12), test=8, anomalous=(5, 6, 7))


@pytest.fixture(scope="module")
def cut(walk, tmp_path_factory):
    """The split of frames."""
    out = tmp_path_factory.mktemp("stages")
    make_manifest(walk, out / "manifest", DataSettings("clips", "walk", stride=2))
    table = pd.read_parquet(out / "manifest/manifest.parquet")
    (out / "validated").mkdir()
    table.to_parquet(out / "validated/clean.parquet")
    (out / "validated/decoding.json").write_text((out / "manifest/decoding.json").read_text())
    return split(out / "validated", walk, out / "split", SplitSettings())


def test_the_manifest_says_that_its_pictures_are_frames_and_the_split_goes_by_clips(cut):
    rules = read_decoding(cut)
    assert (rules.stride, rules.window, rules.tiles) == (2, 0, 0)
    table = read_split(cut)
    sides = table.groupby(table["image_id"].map(clip_of))["split"].agg(set)
    assert sorted(map(sorted, sides)) == [["calibrate"], ["fit"], ["fit"], ["test"]]


def test_a_clip_is_in_one_fold(cut, tmp_path):
    write_folds(cut, tmp_path / "folds", 3)
    for number in range(3):
        table = read_split(tmp_path / f"folds/{number}/split")
        held = table[table["split"] == "calibrate"]
        assert held["image_id"].map(clip_of).nunique() == 1
        assert len(held) == 12
    with pytest.raises(DataError, match="3 clips cannot be in 4 folds; add clips"):
        write_folds(cut, tmp_path / "more", 4)


def test_frames_and_pictures_are_not_joined(cut, tmp_path):
    other = tmp_path / "pictures"
    other.mkdir()
    read_split(cut).to_parquet(other / "split.parquet")
    (other / "decoding.json").write_text('{"white": null, "max_pixels": 1000}')
    with pytest.raises(DataError, match="differ in their frames"):
        join({"a": (cut, cut), "b": (other, other)}, tmp_path / "out", "both")


def test_settings_that_frames_do_not_allow(walk, tmp_path):
    with pytest.raises(SettingsError, match=r"data\.stride is 0"):
        make_manifest(walk, tmp_path / "a", DataSettings("clips", "walk", stride=0))
    with pytest.raises(SettingsError, match=r"data\.tiles is 2"):
        make_manifest(walk, tmp_path / "b", DataSettings("clips", "walk", tiles=2))
    (tmp_path / "decoding.json").write_text('{"white": null, "max_pixels": 100000, "stride": 1}')
    pd.DataFrame({"group": ["a"], "problem": [None]}).to_parquet(tmp_path / "clean.parquet")
    with pytest.raises(SettingsError, match=r"split\.labelled 0"):
        split(tmp_path, walk, tmp_path / "c", SplitSettings(labelled=1))


def test_a_frame_is_a_file_that_decodes_as_it_was(tmp_path):
    write_clip(tmp_path, 2)
    assert (np.asarray(Image.open(tmp_path / "001.png")) == frame(1)).all()
