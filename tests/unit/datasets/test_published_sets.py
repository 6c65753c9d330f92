"""Each published set on a tiny tree in its real layout: every row, and the error of a folder that holds another set."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from components.cli import app
from components.core.errors import DataError
from components.datasets.adapters import ADAPTERS, adapter, listed
from components.datasets.sets.layout import inside
from components.datasets.sets.lists import DAGM, DEEPPCB, REAL_IAD, VISA
from components.datasets.sets.pairs import AITEX
from components.datasets.sets.published import AD_2, BTAD, KSDD, KSDD_2, LOCO, PUBLISHED, THREE_D
from components.datasets.sets.trees import Tree
from components.pictures.masks import mask_paths


def save(root, *names, shade=90):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), shade, np.uint8)).save(path)


def mask(root, *names, marks=True):
    save(root, *names, shade=255 if marks else 0)


def told(root, name):
    """(image, group, label, defect, role, masks) of every row, sorted."""
    rows = adapter(name).rows(root)
    return sorted((r.image_id, r.group, r.label, r.defect, r.role, *mask_paths(r.mask)) for r in rows)


def normal(image, group, role):
    return (image, group, "normal", "", role)


@pytest.mark.parametrize("name", ["mvtec_ad", "mpdd"])
def test_trees_like_mvtec_ad(tmp_path, name):
    save(tmp_path, "nut/train/good/000.png", "nut/test/good/000.png", "nut/test/cut/000.png", "bolt/train/good/0.png")
    mask(tmp_path, "nut/ground_truth/cut/000_mask.png")
    (tmp_path / "bolt/test").mkdir()
    assert told(tmp_path, name) == [
        normal("bolt/train/good/0.png", "bolt", "train"),
        ("nut/test/cut/000.png", "nut", "anomalous", "cut", "test", "nut/ground_truth/cut/000_mask.png"),
        normal("nut/test/good/000.png", "nut", "test"),
        normal("nut/train/good/000.png", "nut", "train"),
    ]
    assert told(tmp_path / "nut", name)[0][:3] == ("test/cut/000.png", "nut", "anomalous")  # one category alone
    (tmp_path / "bolt/test").rmdir()
    with pytest.raises(DataError, match=r"bolt: expected CATEGORY/train/good/.*; found the folders train"):
        told(tmp_path, name)


def test_loco_unites_the_masks_of_a_picture_and_learns_from_validation(tmp_path):
    at = "box/test/logical_anomalies"
    save(tmp_path, "box/train/good/0.png", "box/validation/good/0.png", "box/test/good/0.png", f"{at}/7.png")
    masks = [f"box/ground_truth/logical_anomalies/7/00{i}.png" for i in range(2)]
    mask(tmp_path, *masks)
    assert told(tmp_path, "mvtec_loco") == [
        normal("box/test/good/0.png", "box", "test"),
        (f"{at}/7.png", "box", "anomalous", "logical_anomalies", "test", *masks),
        normal("box/train/good/0.png", "box", "train"),
        normal("box/validation/good/0.png", "box", "train"),
    ]


def test_mvtec_3d_reads_rgb_alone(tmp_path):
    sides = ["bagel/train/good", "bagel/validation/good", "bagel/test/good", "bagel/test/hole"]
    save(tmp_path, *(f"{side}/{part}" for side in sides for part in ("rgb/000.png", "xyz/000.tiff")))
    mask(tmp_path, "bagel/test/hole/gt/000.png")
    mask(tmp_path, "bagel/test/good/gt/000.png", marks=False)
    assert told(tmp_path, "mvtec_3d") == [
        normal("bagel/test/good/rgb/000.png", "bagel", "test"),
        ("bagel/test/hole/rgb/000.png", "bagel", "anomalous", "hole", "test", "bagel/test/hole/gt/000.png"),
        normal("bagel/train/good/rgb/000.png", "bagel", "train"),
        normal("bagel/validation/good/rgb/000.png", "bagel", "train"),
    ]


def test_mvtec_ad_2_tests_the_public_side_alone(tmp_path):
    save(tmp_path, "can/train/good/0_regular.png", "can/validation/good/1_regular.png", "can/test_private/000.png")
    save(
        tmp_path, "can/test_public/good/0_shift.png", "can/test_public/bad/0_shift.png", "can/test_private_mixed/0.png"
    )
    mask(tmp_path, "can/test_public/ground_truth/bad/0_shift_mask.png")
    bad = ("can/test_public/bad/0_shift.png", "can", "anomalous", "bad", "test")
    assert told(tmp_path, "mvtec_ad2") == [
        (*bad, "can/test_public/ground_truth/bad/0_shift_mask.png"),
        normal("can/test_public/good/0_shift.png", "can", "test"),
        normal("can/train/good/0_regular.png", "can", "train"),
        normal("can/validation/good/1_regular.png", "can", "train"),
    ]


def test_btad_by_stem_whatever_the_suffix(tmp_path):
    save(tmp_path, "01/train/ok/0000.bmp", "01/test/ok/0000.bmp", "01/test/ko/0001.bmp")
    mask(tmp_path, "01/ground_truth/ko/0001.png")
    assert told(tmp_path, "btad") == [
        ("01/test/ko/0001.bmp", "01", "anomalous", "ko", "test", "01/ground_truth/ko/0001.png"),
        normal("01/test/ok/0000.bmp", "01", "test"),
        normal("01/train/ok/0000.bmp", "01", "train"),
    ]


def visa(root, *lines):
    save(root, "candle/Data/Images/Normal/0000.JPG", "candle/Data/Images/Anomaly/000.JPG")
    mask(root, "candle/Data/Masks/Anomaly/000.png")
    (root / "split_csv").mkdir(exist_ok=True)
    table = root / "split_csv/1cls.csv"
    table.write_text("\n".join(("object,split,label,image,mask", *lines)) + "\n")
    return table


def test_visa_by_its_table(tmp_path):
    bad = "candle/Data/Images/Anomaly/000.JPG"
    good = "candle,{},normal,candle/Data/Images/Normal/0000.JPG,"
    anomaly = f"{bad},candle/Data/Masks/Anomaly/000.png"
    visa(tmp_path, good.format("train"), f"candle,test,anomaly,{anomaly}", f"candle,train,anomaly,{anomaly}")
    assert told(tmp_path, "visa") == [
        (bad, "candle", "anomalous", "anomaly", "test", "candle/Data/Masks/Anomaly/000.png"),
        normal("candle/Data/Images/Normal/0000.JPG", "candle", "train"),
    ]
    visa(tmp_path, "candle,train,normal,../secret.png,")
    with pytest.raises(DataError, match=r"1cls.csv: names '\.\./secret.png'"):
        told(tmp_path, "visa")
    visa(tmp_path, good.format("holdout"))
    with pytest.raises(DataError, match=r"expected split train or test .* found split holdout"):
        told(tmp_path, "visa")
    visa(tmp_path).write_text("image,split\n")
    with pytest.raises(DataError, match=r"expected .*object,split.*; found the columns image,split"):
        told(tmp_path, "visa")


def real_iad(root, **sides):
    path = root / "realiad_jsons/realiad_jsons/toy.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"meta": {"normal_class": "OK", "prefix": "toy/"}, **sides}))


def test_real_iad_by_its_lists_at_the_largest_size(tmp_path):
    ok, ng = "OK/S0001/toy_0001_OK_C1_1.jpg", "NG/PS/S0002/toy_0002_NG_PS_C1_1"
    save(tmp_path, *(f"realiad_{size}/toy/{n}" for size in (256, 1024) for n in (ok, f"{ng}.jpg", f"{ng}.png")))
    good = {"category": "toy", "anomaly_class": "OK", "image_path": ok, "mask_path": None}
    bad = {"category": "toy", "anomaly_class": "PS", "image_path": f"{ng}.jpg", "mask_path": f"{ng}.png"}
    real_iad(tmp_path, train=[good], test=[good, bad])
    at = "realiad_1024/toy/"
    assert told(tmp_path, "real_iad") == [
        (f"{at}{ng}.jpg", "toy", "anomalous", "PS", "test", f"{at}{ng}.png"),
        normal(at + ok, "toy", "test"),
        normal(at + ok, "toy", "train"),
    ]
    real_iad(tmp_path, train=[bad], test=[])
    with pytest.raises(DataError, match=r"expected good training pictures alone; found .* of class PS"):
        told(tmp_path, "real_iad")
    real_iad(tmp_path, train=[good])
    with pytest.raises(DataError, match=r"expected the keys meta, train and test .* found KeyError: 'test'"):
        told(tmp_path, "real_iad")


def test_ksdd_knows_defects_by_what_their_mask_marks(tmp_path):
    for item, part, marks in (("kos01", 0, False), ("kos01", 1, True), ("kos05", 0, False), ("kos10", 2, True)):
        save(tmp_path, f"{item}/Part{part}.jpg")
        mask(tmp_path, f"{item}/Part{part}_label.bmp", marks=marks)
    assert told(tmp_path, "ksdd") == [
        normal("kos01/Part0.jpg", "kos01", "train"),
        ("kos01/Part1.jpg", "kos01", "anomalous", "defect", "test", "kos01/Part1_label.bmp"),
        normal("kos05/Part0.jpg", "kos05", "test"),
        ("kos10/Part2.jpg", "kos10", "anomalous", "defect", "test", "kos10/Part2_label.bmp"),
    ]
    (tmp_path / "kos05/Part0_label.bmp").unlink()  # without it nobody knows whether the part is good
    with pytest.raises(DataError, match=r"kos05: expected kosNN/PartM.jpg, .*; found the files Part0.jpg"):
        told(tmp_path, "ksdd")


def test_ksdd2_leaves_defects_of_train_out(tmp_path):
    for side, number, marks in (("train", 10000, False), ("train", 10001, True), ("test", 20000, False)):
        save(tmp_path, f"{side}/{number}.png")
        mask(tmp_path, f"{side}/{number}_GT.png", marks=marks)
    save(tmp_path, "test/20001.png")
    mask(tmp_path, "test/20001_GT.png")
    group = tmp_path.name
    assert told(tmp_path, "ksdd2") == [
        normal("test/20000.png", group, "test"),
        ("test/20001.png", group, "anomalous", "defect", "test", "test/20001_GT.png"),
        normal("train/10000.png", group, "train"),
    ]


def test_dagm_knows_defects_by_their_mask_and_leaves_those_of_train_out(tmp_path):
    save(tmp_path, *(f"Class1/{side}/{number}.PNG" for side in ("Train", "Test") for number in ("0001", "0002")))
    mask(tmp_path, *(f"Class1/{side}/Label/0002_label.PNG" for side in ("Train", "Test")))
    (tmp_path / "Class1/Train/Label/Labels.txt").write_text("1\n")
    assert told(tmp_path, "dagm") == [
        normal("Class1/Test/0001.PNG", "Class1", "test"),
        ("Class1/Test/0002.PNG", "Class1", "anomalous", "defect", "test", "Class1/Test/Label/0002_label.PNG"),
        normal("Class1/Train/0001.PNG", "Class1", "train"),
    ]


def test_aitex_tests_a_fifth_of_each_fabric_and_unites_masks(tmp_path):
    fabrics = {"00": "2306881-210020u", "01": "2306894-185033u"}
    good = [f"NODefect_images/{folder}/000{i}_000_{code}.png" for code, folder in fabrics.items() for i in range(6)]
    save(tmp_path, *good, "Defect_images/0044_019_01.png", "Defect_images/0045_002_00.png")
    mask(tmp_path, *(f"Mask_images/0044_019_01_mask{i}.png" for i in (1, 2)), "Mask_images/0045_002_00_mask.png")
    rows, two = told(tmp_path, "aitex"), [f"Mask_images/0044_019_01_mask{i}.png" for i in (1, 2)]
    assert rows[:2] == [
        ("Defect_images/0044_019_01.png", "01", "anomalous", "019", "test", *two),
        ("Defect_images/0045_002_00.png", "00", "anomalous", "002", "test", "Mask_images/0045_002_00_mask.png"),
    ]
    tested = [row[0][-15:] for row in rows[2:] if row[4] == "test"]
    assert tested == ["0000_000_00.png", "0005_000_00.png", "0000_000_01.png", "0005_000_01.png"]


def test_deeppcb_learns_from_templates(tmp_path):
    for side, number in (("trainval", "00041000"), ("test", "00041001")):
        save(tmp_path, *(f"PCBData/group00041/00041/{number}_{what}.jpg" for what in ("temp", "test")))
        line = f"group00041/00041/{number}.jpg group00041/00041_not/{number}.txt\n"
        (tmp_path / f"PCBData/{side}.txt").write_text(line)
    at, group = "group00041/00041/0004100", "group00041"
    for root, prefix in ((tmp_path, "PCBData/"), (tmp_path / "PCBData", "")):
        assert told(root, "deeppcb") == [
            normal(f"{prefix}{at}0_temp.jpg", group, "train"),
            normal(f"{prefix}{at}1_temp.jpg", group, "test"),
            (f"{prefix}{at}1_test.jpg", group, "anomalous", "defect", "test"),
        ]


@pytest.mark.parametrize(
    "names", [("Cr_{}.bmp", "PS_{}.bmp"), ("images/crazing_{}.jpg", "images/pitted_surface_{}.jpg")]
)
def test_neu_has_kinds_of_defects_for_classes(tmp_path, names):
    save(tmp_path, *(name.format(i) for name in names for i in range(1, 7)))
    rows = adapter("neu").rows(tmp_path)
    assert [(r.group, r.role) for r in rows if r.role == "test"] == [
        (kind, "test") for kind in ("crazing", "crazing", "pitted_surface", "pitted_surface")
    ]
    assert {r.label for r in rows} == {"normal"}
    save(tmp_path, "weld_1.jpg")
    with pytest.raises(DataError, match=r"expected pictures KIND_NUMBER.*; found weld_1.jpg"):
        adapter("neu").rows(tmp_path)


EXPECTED = {
    "mvtec_ad": Tree().expected,
    "mvtec_loco": LOCO.expected,
    "mvtec_3d": THREE_D.expected,
    "mvtec_ad2": AD_2.expected,
    "mpdd": Tree().expected,
    "btad": BTAD.expected,
    "visa": VISA,
    "real_iad": REAL_IAD,
    "ksdd": KSDD.expected,
    "ksdd2": KSDD_2.expected,
    "dagm": DAGM,
    "aitex": AITEX,
    "deeppcb": DEEPPCB,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_folder_of_another_layout_is_refused_with_what_was_expected_and_found(tmp_path, name):
    save(tmp_path, "pictures/holiday.jpg", "readme.png")
    with pytest.raises(DataError) as caught:
        adapter(name).rows(tmp_path)
    said = str(caught.value)
    assert f"expected {EXPECTED.get(name, '')}" in said
    assert "; found " in said
    assert "pictures" in said.partition("; found ")[2]


@pytest.mark.parametrize("name", PUBLISHED)
def test_each_set_says_where_it_comes_from_and_how_it_is_used(name):
    kind = ADAPTERS[name]
    assert kind.licence
    assert kind.source
    assert kind.layout
    assert kind.protocol
    assert "groups" in kind.counts or name in ("ksdd", "ksdd2", "deeppcb")


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_page_says_of_each_set_what_the_declaration_does(name):
    page, kind = Path("docs/data.md").read_text(), ADAPTERS[name]
    (line,) = (
        line for line in page.splitlines() if line.startswith(f"| `{name}` | {kind.licence.partition(';')[0]} |")
    )
    told = {int(number) for number in re.findall(r"\d+", line.replace(",", "").partition(" | ")[2].split(" | ", 2)[2])}
    assert told >= set(kind.counts.values())
    assert f"- **{name}**: {kind.protocol}." in " ".join(page.split())


def test_the_command_tells_all_sets_and_all_of_one():
    told = CliRunner().invoke(app, ["data", "sets"]).output.splitlines()
    assert [line.split()[0] for line in told] == list(ADAPTERS)
    one = CliRunner().invoke(app, ["data", "sets", "visa"]).output
    assert f"licence:  {ADAPTERS['visa'].licence}\n" in one
    assert "counts:   9621 normals, 1200 anomalous, 12 groups\n" in one
    assert "layout" not in CliRunner().invoke(app, ["data", "sets", "elpv"]).output  # nothing is said of it
    assert isinstance(CliRunner().invoke(app, ["data", "sets", "vsa"]).exception, DataError)


def test_counts_that_are_not_as_published_are_told_and_refuse_nothing(tmp_path, caplog):
    caplog.set_level(logging.INFO, "loupe")
    save(tmp_path, "nut/train/good/0.png", "nut/test/good/0.png")
    listed("mvtec_ad", tmp_path)
    (part,) = caplog.records
    assert part.levelno == logging.INFO  # one category of fifteen is no fault
    assert "1 training normals (published 3629)" in part.message
    caplog.clear()
    for number in range(2, 16):
        save(tmp_path, f"nut{number}/train/good/0.png", f"nut{number}/test/good/0.png")
    listed("mvtec_ad", tmp_path)
    (whole,) = caplog.records
    assert whole.levelno == logging.WARNING
    assert "15 training normals (published 3629)" in whole.message


def test_a_list_names_paths_inside_its_set(tmp_path):
    assert inside("a\\b.png", tmp_path) == "a/b.png"
    for text in ("/etc/passwd", "a/../../b.png", ""):
        with pytest.raises(DataError, match="no path below the data set"):
            inside(text, tmp_path)
