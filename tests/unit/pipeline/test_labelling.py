"""What reviewers drew, from the page's request to the files of labelling tools and to masks that Loupe reads."""

import io
import json
import shutil
import xml.etree.ElementTree as ET
from datetime import timedelta

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.core.errors import DataError, SettingsError
from components.datasets.manifest import make_manifest
from components.datasets.settings import DataSettings
from components.pipeline.labelling import FORMS, export_labels, run_lengths
from components.scorelog.shapes import box_of, drawn_mask, read_shapes
from tests.service.conftest import png
from tests.service_pages import Line

BOX = {"kind": "box", "points": [[10, 20], [30, 50]]}
STROKE = {"kind": "stroke", "points": [[0, 0], [40, 0]], "width": 10}
POLYGON = {"kind": "polygon", "points": [[60, 60], [80, 60], [60, 80]]}


@pytest.fixture
def line(bundle, tmp_path):
    """Three alarms of one model, one of another, each with its picture."""
    line = Line(bundle, tmp_path)
    for i, name in enumerate(("a", "b", "c", "d")):
        content = png(i)
        sha = line.recorder.keep_image(content)
        more = {"sha256": sha, "image_uri": f"images/{sha}", "image_id": f"{name}.PNG", "registered": "tiles"}
        line.put(name, timedelta(minutes=i), alarm=True, **more | ({"registered": "cells"} if name == "d" else {}))
    return line


def label(line, name, given, **more):
    return line.http.put(f"/v1/records/id-{name}/label", json={"label": given, "reviewer": "Ada"} | more)


@pytest.fixture
def store(line, tmp_path):
    assert label(line, "a", "defect", shapes=[BOX, STROKE, POLYGON], tags=["crack"]).status_code == 200
    label(line, "b", "false_alarm")
    label(line, "c", "defect")
    label(line, "d", "defect", shapes=[BOX])
    assert line.recorder.shipper.ship()
    return str(tmp_path / "store")


def test_shapes_are_kept_with_the_label_and_shown_again(line):
    answer = label(line, "a", "defect", shapes=[BOX, STROKE])
    assert read_shapes(answer.json()) == [BOX, STROKE]
    row = next(r for r in line.get("/v1/records")["records"] if r["image_id"] == "a.PNG")
    assert json.loads(row["shapes"])[0]["points"] == [[10, 20], [30, 50]]


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ("defect", {"kind": "box", "points": [[1, 1]]}),
        ("defect", {"kind": "box", "points": [[1, 1], [2, 2], [3, 3]]}),
        ("defect", {"kind": "polygon", "points": [[1, 1], [2, 2]]}),
        ("defect", {"kind": "box", "points": [[1, 1], [97, 2]]}),
        ("defect", {"kind": "box", "points": [[-1, 1], [9, 2]]}),
        ("defect", {"kind": "circle", "points": [[1, 1], [9, 2]]}),
        ("defect", {"kind": "stroke", "points": [[1, 1]], "width": -2}),
        ("false_alarm", BOX),
    ],
)
def test_shapes_that_make_no_sense_are_refused_and_store_nothing(line, given, shape):
    assert label(line, "a", given, shapes=[shape]).status_code == 422
    assert line.recorder.labels == {}


def test_masks_are_what_was_drawn():
    box, stroke = drawn_mask([BOX], 96, 64), drawn_mask([STROKE], 96, 64)
    assert box.shape == (64, 96)
    assert (int((box > 0).sum()), box[20, 10], box[49, 29], box[50, 30]) == (20 * 30, 255, 255, 0)
    assert stroke[0:5, 20].min() == 255
    assert stroke[7, 20] == 0
    assert box_of(STROKE) == (-5.0, -5.0, 45.0, 5.0)
    assert drawn_mask([POLYGON], 96, 96)[62, 62] == 255
    assert drawn_mask([POLYGON], 96, 96)[78, 78] == 0


def test_run_lengths_are_cocos():
    mask = np.array([[0, 1], [1, 1]], bool)
    assert run_lengths(mask) == [1, 3]
    assert run_lengths(~mask) == [0, 1, 3]
    assert sum(run_lengths(np.zeros((3, 5), bool))) == 15


def test_coco(store, tmp_path):
    said = export_labels(store, "coco", tmp_path / "coco", "tiles")
    assert said[0] == "3 pictures, 2 of them defects with 3 shapes, 1 good"
    found = json.loads((tmp_path / "coco/annotations.json").read_text())
    assert len(found["images"]) == 3
    for image in found["images"]:
        with Image.open(tmp_path / "coco" / image["file_name"]) as opened:
            assert opened.size == (image["width"], image["height"])
    box, stroke, polygon = found["annotations"]
    assert (box["bbox"], box["area"]) == ([10.0, 20.0, 20.0, 30.0], 600)
    assert polygon["segmentation"] == [[60.0, 60.0, 80.0, 60.0, 60.0, 80.0]]
    assert sum(stroke["segmentation"]["counts"][1::2]) == stroke["area"]
    assert stroke["bbox"] == [0.0, 0.0, 45.0, 5.0]  # what lies on the picture
    whose = next(i for i in found["images"] if i["id"] == box["image_id"])
    assert whose["loupe"] == {"label": "defect", "tags": "crack", "image_id": "a.PNG"}


def test_label_studio(store, tmp_path):
    export_labels(store, "label-studio", tmp_path / "studio", "tiles")
    tasks = json.loads((tmp_path / "studio/tasks.json").read_text())
    results = next(t for t in tasks if t["data"]["image_id"] == "a.PNG")["annotations"][0]["result"]
    assert [r["type"] for r in results] == ["choices", "rectanglelabels", "rectanglelabels", "polygonlabels"]
    assert results[1]["value"]["x"] == pytest.approx(100 * 10 / 96)
    assert results[1]["value"]["height"] == pytest.approx(100 * 30 / 96)
    names = {tag.get("name") for tag in ET.parse(tmp_path / "studio/config.xml").getroot()}
    assert {r["from_name"] for r in results} <= names
    assert all((tmp_path / "studio" / task["data"]["image"]).exists() for task in tasks)


def test_voc(store, tmp_path):
    export_labels(store, "voc", tmp_path / "voc", "tiles")
    trees = [ET.parse(path).getroot() for path in sorted((tmp_path / "voc/Annotations").glob("*.xml"))]
    assert len(trees) == 3
    boxes = [[int(v.text) for v in b] for tree in trees for b in tree.iter("bndbox")]
    assert [10, 20, 30, 50] in boxes
    assert len(boxes) == 3
    assert all((tmp_path / "voc/JPEGImages" / tree.findtext("filename")).exists() for tree in trees)


def test_masks_are_a_data_set_that_loupe_reads(store, product, tmp_path):
    said = export_labels(store, "masks", tmp_path / "masks")
    assert said[1] == "1 defects without a drawing are left out"
    shutil.copytree(product / "train", tmp_path / "masks/train")  # what it learned from
    rows = make_manifest(tmp_path / "masks", tmp_path / "manifest", DataSettings("folder", "part"))
    table = pd.read_parquet(rows / "manifest.parquet")
    table = table[table["role"] == "test"]
    assert sorted(table["label"]) == ["anomalous", "anomalous", "normal"]
    masks = list(table["mask"].dropna())
    assert len(masks) == 2
    assert sorted((np.asarray(Image.open(tmp_path / "masks" / m)) > 0).sum() for m in masks)[0] == 600


def test_the_last_word_counts_and_withdrawn_ones_go(line, store, tmp_path):
    label(line, "a", "withdrawn")
    label(line, "b", "defect", shapes=[BOX])
    assert line.recorder.shipper.ship()
    said = export_labels(store, "coco", tmp_path / "coco", "tiles")
    assert said[0] == "2 pictures, 2 of them defects with 1 shapes, 0 good"
    assert export_labels(store, "voc", tmp_path / "coco", "tiles")  # a folder of its own may be replaced


def test_what_cannot_be_written_is_told(store, tmp_path):
    with pytest.raises(SettingsError, match="choose one of coco"):
        export_labels(store, "yolo", tmp_path / "out")
    with pytest.raises(DataError, match="holds no labelled picture of nobody"):
        export_labels(store, "coco", tmp_path / "out", "nobody")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    with pytest.raises(SettingsError, match="not labels"):
        export_labels(store, "coco", tmp_path / "full")
    assert set(FORMS) == {"coco", "label-studio", "voc", "masks"}
    assert Image.open(io.BytesIO(png(0))).size == (96, 96)
