"""Folders as people have them: below train and test, other names of good, what is not read, what is copied."""

import logging
import unicodedata

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.core.artefacts import read_json
from components.core.errors import DataError, SettingsError
from components.datasets import versions
from components.datasets.adapters import folder_rows, listed
from components.datasets.folders import read_folder, read_labelled
from components.datasets.manifest import make_manifest
from components.datasets.names import sounds_good
from components.datasets.rows import Naming
from components.datasets.settings import DataSettings, ValidationSettings
from components.datasets.splits import share_of
from components.datasets.validation.validate import validate


def picture(path, value=100):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((40, 40), value, np.uint8)
    pixels[:8, : value % 37 + 1] = 200
    Image.fromarray(pixels).save(path)


def folder(root, *names):
    for number, name in enumerate(names):
        picture(root / name, 40 + number)
    return root


def sides(rows):
    return {row.image_id: (row.role, row.label, row.defect) for row in rows}


def test_pictures_in_folders_below_are_taken(tmp_path):
    rows = folder_rows(
        folder(tmp_path, "train/good/day 1/a.png", "train/good/b.png", "test/good/cam/c.png", "test/hole/cam/day/d.png")
    )
    assert sides(rows) == {
        "train/good/b.png": ("train", "normal", ""),
        "train/good/day 1/a.png": ("train", "normal", ""),
        "test/good/cam/c.png": ("test", "normal", ""),
        "test/hole/cam/day/d.png": ("test", "anomalous", "hole"),
    }
    assert {row.group for row in rows} == {tmp_path.name}


def test_the_first_folder_below_may_be_the_group(tmp_path):
    folder(tmp_path, "train/good/cam1/x/a.png", "train/good/cam2/a.png", "train/good/a.png", "test/hole/cam2/b.png")
    rows = folder_rows(tmp_path, Naming(groups="folder"))
    assert {row.image_id: row.group for row in rows} == {
        "train/good/cam1/x/a.png": "cam1",
        "train/good/cam2/a.png": "cam2",
        "train/good/a.png": tmp_path.name,
        "test/hole/cam2/b.png": "cam2",
    }


@pytest.mark.parametrize(
    "name",
    [
        "OK",
        "o.k.",
        "Good",
        "GOOD",
        "normal",
        "Passed",
        "gut",
        "iO",
        "i.O.",
        "in_Ordnung",
        "bon",
        "Conforme",
        "bueno",
        "boa",
        "buono",
        "goed",
        "godkänd",
        "良品",
        "合格",
        "正常",
        "хороший",
        "dobry",
        "İyi",
        "ok_parts",
        "good-images 2",
        "GoodParts",
    ],
)
def test_names_that_sound_good(name):
    assert sounds_good(name)
    assert sounds_good(unicodedata.normalize("NFD", name))


@pytest.mark.parametrize(
    "name",
    [
        "NOK",
        "n.i.O.",
        "NiO",
        "not_good",
        "no good",
        "nicht ok",
        "ng",
        "not-normal",
        "abnormal",
        "hole",
        "broken_large",
        "good_but_scratched",
        "ok_scratch",
        "不良",
        "color",
        "2024",
    ],
)
def test_names_of_defects_do_not(name):
    assert not sounds_good(name)


def test_another_name_of_good_in_the_test_is_asked_about_never_guessed(tmp_path):
    folder(tmp_path, "train/good/a.png", "test/OK/b.png", "test/hole/c.png")
    (tmp_path / "test/normal").mkdir()  # empty: nothing to mistake
    with pytest.raises(DataError, match=r"test/OK sounds like good pictures; .*--good OK. or .--defect OK"):
        folder_rows(tmp_path)
    assert sides(folder_rows(tmp_path, Naming(good=("OK",))))["test/OK/b.png"] == ("test", "normal", "")
    assert sides(folder_rows(tmp_path, Naming(defect=("OK",))))["test/OK/b.png"] == ("test", "anomalous", "OK")
    with pytest.raises(DataError, match="no folder ok in train or test; there are OK, good, hole, normal"):
        folder_rows(tmp_path, Naming(good=("ok",)))
    with pytest.raises(DataError, match="declared as good and as a defect"):
        folder_rows(tmp_path, Naming(good=("OK",), defect=("OK",)))


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["train/OK/a.png", "train/OK/b.png"], "train/OK holds 2 pictures: if they are good say so with `--good OK`"),
        (["train/a.png"], "train holds 1 pictures of its own: move the good ones into train/good"),
        (["train/day1/a.png"], "there are train/day1 (1): put the good images into train/good, or name their folder"),
        (["Train/good/a.png"], "has no folder train/good but Train; rename that to train"),
        (
            ["good/a.png", "hole/b.png"],
            "has no folder train/good but good (1 pictures); move it to train/good, or ",
        ),
        (["good/a.png", "hole/b.png"], "/good --good ."),
        (["Gut/a.png"], "has no folder train/good but Gut (1 pictures); move it to train/Gut and say --good Gut"),
        (
            ["a.png", "b.jpg"],
            "has no folder train/good but 2 pictures of its own; say `--good .` if all are good, else",
        ),
        (["photos/train/good/a.png"], "but photos/train is there; give --data"),
        (
            ["x/y/a.png"],
            "it holds 1 pictures in x: say `--good .` if all are good, else put the good images into train",
        ),
        ([], "it holds none: put the good images into train/good"),
    ],
)
def test_without_train_good_the_error_says_what_to_do(names, sentence, tmp_path):
    with pytest.raises(DataError) as error:
        folder_rows(folder(tmp_path, *names))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


WHOLE = Naming(good=("good", "."))


def test_a_folder_of_good_pictures_alone_is_read_as_it_lies(tmp_path):
    root = folder(tmp_path / "camera", "a.png", "day 1/b.png", "day 1/x/c.png", ".trash/d.png")
    found = read_folder(root, WHOLE)
    assert sides(found.rows) == dict.fromkeys(("a.png", "day 1/b.png", "day 1/x/c.png"), ("train", "normal", ""))
    assert found.notes["taken"] == {".": 3}
    assert {row.group for row in found.rows} == {"camera"}
    by_folder = read_folder(root, Naming(good=WHOLE.good, groups="folder"))
    assert {row.image_id: row.group for row in by_folder.rows}["day 1/b.png"] == "day 1"


@pytest.mark.parametrize(
    ("names", "naming", "sentence"),
    [
        (
            ["a.png", "test/hole/b.png"],
            WHOLE,
            "but it has test; put the good ones into train/good, or give",
        ),
        (["good/a.png", "hole/b.png"], WHOLE, "but it has good; put"),
        (["a.png", "NOK/b.png", "masks/b.png"], WHOLE, "but it has NOK and masks; put"),
        (["a.png", "hole/b.png"], Naming(good=WHOLE.good, defect=("hole",)), "but --defect hole names others; put"),
        (["notes/"], WHOLE, "but it holds none; give the folder of the good pictures"),
        ([f"part {i}/x.png" for i in range(3)], WHOLE, "hold files of the same names; move them below train/good"),
    ],
)
def test_what_cannot_all_be_good_is_refused(names, naming, sentence, tmp_path):
    folder(tmp_path, *[name for name in names if not name.endswith("/")])
    with pytest.raises(DataError, match=r"`--good \.` takes all of its pictures as good, but") as error:
        read_folder(tmp_path, naming)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_labelled_pictures_are_read_by_their_folders_whatever_the_run_learned_from(tmp_path):
    rows = read_labelled(folder(tmp_path, "good/a.png", "hole/b.png"), WHOLE).rows
    assert sides(rows) == {"good/a.png": ("test", "normal", ""), "hole/b.png": ("test", "anomalous", "hole")}


@pytest.mark.usefixtures("_unpinned")
def test_good_pictures_alone_are_copied_below_train_good(tmp_path):
    source = folder(tmp_path / "camera", "a.png", "day 1/b.png")
    out = versions.bring_in("part", "folder", source, tmp_path / "data", WHOLE)
    assert set(sides(folder_rows(out))) == {"train/good/a.png", "train/good/day 1/b.png"}


def test_the_folder_train_itself_is_told_to_go_up(tmp_path):
    folder(tmp_path, "train/good/a.png")
    with pytest.raises(DataError, match=f"give the folder above it with --data {tmp_path}"):
        folder_rows(tmp_path / "train")


def test_file_names_that_repeat_in_every_folder_still_divide():
    shares = [share_of(f"train/good/part {i}/picture.png") for i in range(200)]
    assert 0.1 < np.mean(np.array(shares) < 0.2) < 0.3
    assert share_of("train/good/a.png") == share_of("MT_Free/Imgs/a.png") == share_of("train/OK/a.png")


def test_a_camera_above_the_label_is_no_defect(tmp_path, caplog):
    folder(tmp_path, "train/good/NG/x.png", "test/cam1/good/a.png", "test/cam1/hole/b.png")
    with pytest.raises(DataError, match=r"test/cam1 counts as a defect, but good below it .* \(test/good/cam1\)"):
        folder_rows(tmp_path)
    assert len(listed("folder", tmp_path, Naming(defect=("cam1",))).rows) == 3
    assert "train/good/.../NG counts as good, but sounds like defects" in caplog.text


def test_a_declared_name_of_good_is_read_in_training(tmp_path):
    folder(tmp_path, "train/OK/a.png", "train/good/b.png", "test/OK/c.png")
    assert {row.role + row.label for row in folder_rows(tmp_path, Naming(good=("OK",)))} == {
        "trainnormal",
        "testnormal",
    }
    assert len(folder_rows(tmp_path, Naming(good=("OK",)))) == 3


def test_another_spelling_of_test_is_no_silence(tmp_path):
    with pytest.raises(DataError, match="Test is not read, the folder's name is test; rename it"):
        folder_rows(folder(tmp_path, "train/good/a.png", "Test/hole/b.png"))


@pytest.mark.slow
def test_what_is_not_read_is_named_with_its_count_and_stands_in_the_summary(tmp_path, caplog):
    root = folder(
        tmp_path / "part",
        *(f"train/good/{i}.png" for i in range(3)),
        "train/hole/a.png",
        "extra/b.png",
        "test/loose.png",
        "test/good/._x.png",
        "test/good/x.png",
        "train/good/n_mask.png",
    )
    (root / "train/good/notes.txt").write_text("x")
    (root / "train/good/gone.png").symlink_to("nowhere.png")
    (root / "train/good/folder.png").mkdir()
    (root / "test/scratch").mkdir()
    with caplog.at_level(logging.INFO, "loupe"):
        make_manifest(root, tmp_path / "manifest", DataSettings("folder", "part"))
    said = caplog.text
    assert "part: pictures taken: train/good 4, test/good 1, test/scratch 0" in said
    assert "test/scratch without a picture" in said
    assert "train/hole is not read (1 pictures)" in said
    assert "extra is not read (1 pictures)" in said
    assert "test/* is not read (1 pictures)" in said
    assert "1 broken link: train/good/gone.png" in said
    out = validate(tmp_path / "manifest", root, tmp_path / "out", ValidationSettings(min_train_normals=2))
    notes = read_json(out / "summary.json")["listing"]
    assert notes["taken"] == {"train/good": 4, "test/good": 1, "test/scratch": 0}
    assert notes["skipped"][".txt"] == ["train/good/notes.txt"]
    assert notes["skipped"]["hidden or of the system"] == ["test/good/._x.png"]
    assert notes["not_read"] == {"train/hole": 1, "extra": 1, "test/*": 1}


def test_declarations_are_for_folders_alone(tmp_path):
    (tmp_path / "images.csv").write_text("image_id,group,label,defect,role,mask\n")
    with pytest.raises(SettingsError, match="adapter collected knows its labels"):
        listed("collected", tmp_path, Naming(good=("OK",)))


def test_a_labelled_folder_needs_neither_train_nor_test(tmp_path):
    root = folder(tmp_path, "good/a.png", "hole/b.png", "ground_truth/hole/b_mask.png", "hole/deep/c.png")
    rows = read_labelled(root).rows
    assert sides(rows) == {
        "good/a.png": ("test", "normal", ""),
        "hole/b.png": ("test", "anomalous", "hole"),
        "hole/deep/c.png": ("test", "anomalous", "hole"),
    }
    assert {row.image_id: row.mask for row in rows}["hole/b.png"] == "ground_truth/hole/b_mask.png"
    with pytest.raises(DataError, match="holds no labelled pictures"):
        read_labelled(root / "hole/deep")


def test_training_pictures_of_a_labelled_folder_count_as_good(tmp_path):
    rows = read_labelled(folder(tmp_path, "train/good/a.png", "test/hole/b.png")).rows
    assert [row.label for row in rows] == ["normal", "anomalous"]


@pytest.fixture
def _unpinned(monkeypatch):
    monkeypatch.setattr(versions, "pin", lambda path: path)


@pytest.mark.usefixtures("_unpinned")
def test_data_add_copies_files_behind_links_and_leaves_out_broken_ones_by_name(tmp_path, caplog):
    source = folder(tmp_path / "stick", "train/good/a.png", "test/hole/b.png", "ground_truth/hole/b_mask.png")
    picture(tmp_path / "archive/old.png", 90)
    (source / "train/good/link.png").symlink_to(tmp_path / "archive/old.png")
    (source / "train/good/gone.png").symlink_to(tmp_path / "archive/gone.png")
    (source / "train/good/round").symlink_to(source / "train")
    (source / "train/good/._a.png").write_bytes(b"x")
    (source / "licence.txt").write_text("mine")
    out = versions.bring_in("part", "folder", source, tmp_path / "data")
    copied = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert copied == {
        "train/good/a.png",
        "train/good/link.png",
        "test/hole/b.png",
        "ground_truth/hole/b_mask.png",
        "licence.txt",
    }
    assert not (out / "train/good/link.png").is_symlink()
    assert f"left out: {source / 'train/good/gone.png'}" in caplog.text


@pytest.mark.usefixtures("_unpinned")
def test_data_add_takes_declared_names_and_looks_before_it_copies(tmp_path):
    source = folder(tmp_path / "stick", "train/OK/a.png")
    with pytest.raises(DataError, match="--good OK"):
        versions.bring_in("part", "folder", source, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    assert versions.bring_in("part", "folder", source, tmp_path / "data", Naming(good=("OK",))).is_dir()
    with pytest.raises(DataError, match="is not a folder"):
        versions.bring_in("other", "folder", source / "train/OK/a.png", tmp_path / "data")


def test_settings_of_the_data_reach_the_manifest(tmp_path):
    root = folder(tmp_path / "part", "train/OK/cam/a.png")
    settings = DataSettings("folder", "part", good=("OK",), groups="folder")
    table = pd.read_parquet(make_manifest(root, tmp_path / "out", settings) / "manifest.parquet")
    assert list(table["group"]) == ["cam"]
    assert read_folder(root, settings.naming).notes["folders"] == {"train/OK": ["cam"]}
