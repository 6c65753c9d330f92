"""What evaluation reads and draws, from tables alone: truths of pixels, curves, the choice of the gallery."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.evaluation.drawing import curves, gallery
from components.evaluation.truths import read_truths
from components.pictures.decoding import Decoding
from components.pictures.roi import written

SIDE = 32


@pytest.fixture
def data(tmp_path):
    """Eight pictures 0.png to 7.png, and three masks: a square, an empty one, one at the left border."""
    for number in range(8):
        Image.fromarray(np.full((SIDE, SIDE, 3), 20 * number, np.uint8)).save(tmp_path / f"{number}.png")
    for name, columns in (("square", slice(10, 18)), ("empty", slice(0)), ("left", slice(0, 4))):
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[10:18, columns] = 255
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    return tmp_path


def table(**columns):
    values = {"label": ["normal"], "mask": [None], "mask_rule": [None], **columns}
    count = max(map(len, values.values()))
    return pd.DataFrame({key: value * (count if len(value) == 1 else 1) for key, value in values.items()})


def test_only_what_is_known_of_pixels_counts_and_the_rest_is_said(data, caplog):
    rows = table(
        label=["normal", "anomalous", "anomalous", "anomalous", "anomalous"],
        mask=[None, "square.png", "empty.png", "square.png", None],
        mask_rule=[None, None, None, "unknown: looks inverted (x)", None],
    )
    found = read_truths(rows, data, 16, Decoding())
    assert sorted(found.masks) == [0, 1]
    assert not found.masks[0].any()
    assert found.masks[1][5:9, 5:9].all()
    assert found.masks[1].sum() == 16
    assert found.said == {"used": 1, "unknown": {"empty mask": 1, "looks inverted": 1}, "without": 1}
    assert "of 1 images the mask does not tell: looks inverted" in caplog.text
    assert found.defects(16)["median_side_seen"] == 4


def test_a_defect_outside_the_region_is_in_no_figure(data, caplog):
    region = np.zeros((SIDE, SIDE), bool)
    region[:, 14:] = True
    rows = table(label=["anomalous"], mask=["square.png", "left.png"])
    found = read_truths(rows, data, SIDE, Decoding(roi=written(region, (SIDE, SIDE))))
    assert list(found.masks) == [0]
    assert found.outside == [1]
    assert found.said["region"] == {"cut": 1, "outside": 1}
    assert found.masks[0][:, :14].sum() == 0
    assert "the defects of 1 images lie outside the region of interest" in caplog.text


SCORES = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
LABELS = ["normal", "normal", "anomalous", "normal", "normal", "anomalous", "anomalous", "uncertain"]


def result(**columns):
    values = {"image_id": [f"{n}.png" for n in range(8)], "label": LABELS, "score": SCORES, "p_value": [0.5] * 8}
    return pd.DataFrame({**values, "decision": ["anomalous" if s > 4 else "normal" for s in SCORES], **columns})


def test_curves_are_of_pictures_with_a_known_label(tmp_path):
    (tmp_path / "history.json").write_text('[{"loss": 2.0, "synthetic_auroc": 0.5}, {"loss": 1.0}]')
    curves(tmp_path, result(), [[0.0, 0.2], [0.3, 0.9]], tmp_path / "history.json", 4.0)
    roc, pro = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("roc", "pro"))
    area = np.trapezoid(roc["tpr"], roc["fpr"])
    assert area == pytest.approx(np.mean([bad > good for bad in (3, 6, 7) for good in (1, 2, 4, 5)]))
    assert list(pro.columns) == ["fpr", "overlap"]
    assert {p.name for p in tmp_path.glob("*.png")} == {"curves.png", "histogram.png", "history.png"}


def test_without_both_labels_or_a_history_there_is_no_curve(tmp_path):
    curves(tmp_path, result(label="normal"), None, tmp_path / "none.json", 4.0)
    assert {p.name for p in tmp_path.iterdir()} == {"curves.png", "histogram.png"}


def test_the_gallery_shows_each_kind_by_its_scores(data, tmp_path):
    maps = np.zeros((8, 4, 4), np.float32)
    scale = {"0.99": 0.0, "1.0": 0.0}  # of maps that are all alike
    gallery(tmp_path / "out", data, result(), result(), maps, {}, scale, count=2, split="labelled")
    page = (tmp_path / "out/index.html").read_text()
    shown = re.findall(r"<tr><td>([a-z ]+)</td><td>(\d)\.png</td>", page)
    assert shown == [
        ("most anomalous", "6"),
        ("most anomalous", "5"),
        ("missed", "2"),
        ("false alarms", "4"),
        ("typical normals", "3"),
        ("typical normals", "4"),
    ]
    assert "Heat maps of the labelled split" in page
    assert (tmp_path / "out/gallery.png").exists()


def test_a_gallery_of_nothing_says_so(data, tmp_path):
    none = result().iloc[:0]
    gallery(tmp_path / "out", data, none, none, np.zeros((0, 4, 4)), {}, {"0.99": 0.0, "1.0": 1.0}, count=2)
    assert '<p class="plain">no images</p>' in (tmp_path / "out/index.html").read_text()
