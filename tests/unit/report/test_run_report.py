"""The page of a run: its figures are those of the run's files, and it can be written again from these alone."""

import re
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.core.artefacts import read_json, write_json
from components.core.shares import share_interval
from components.decision.calibration import Calibration
from components.pipeline.fit import ending
from components.pipeline.operating import PointRequest, set_point
from components.report import card, cells, checked, figures, found, measured, run, told
from components.report.numbers import percent

SCORES = [float(n) for n in range(1, 20)]
VALUES = {
    "alpha": 0.1,
    "threshold": 18.0,
    "confidence": 0.95,
    "scores": SCORES,
    "n": 19,
    "false_alarm_interval": [0.0155, 0.21],
}


@pytest.fixture
def known():
    return Calibration.of(VALUES)


@pytest.fixture
def evidence():
    rows = [(f"{n}.png", "normal", np.nan, s) for n, s in enumerate(SCORES)]
    rows += [("a.png", "graded_small", 10.0, 30.0), ("b.png", "graded_small", 12.0, 2.0), ("c.png", "own", 200.0, 40.0)]
    rows += [("0.png", "nuisance gain", np.nan, 25.0), ("1.png", "nuisance gain", np.nan, 3.0)]
    return pd.DataFrame(rows, columns=["image_id", "kind", "extent", "score"])


def texts(rows):
    return [[getattr(cell, "text", cell) for cell in row] for row in rows]


def test_synthetic_anomalies_by_kind_and_size_at_the_operating_point(known, evidence):
    low, high = share_interval(1, 2)
    kinds = texts(found.by_kind(evidence, known))
    assert [row[0].partition(":")[0] for row in kinds] == ["small", "own"]
    assert kinds[0][1:] == ["1 of 2 (50 %)", f"{percent(low)} to {percent(high)}"]
    assert [row[:2] for row in texts(found.by_size(evidence, known))] == [
        ["under 16 pixels", "1 of 2 (50 %)"],
        ["128 or more pixels", "1 of 1 (100 %)"],
    ]
    assert texts(found.nuisances(evidence, known))[0][:2] == ["a little brighter or darker", "1 of 2 (50 %)"]


def test_the_verdict_has_three_sentences_and_says_what_is_not_known(known, evidence):
    where, promise, finds = told.verdict(known, evidence, None)
    assert "**18**" in where
    assert "10 %" in promise
    assert "**1.6 % and 21 %**" in promise
    assert "finds 2 of 3 synthetic anomalies" in finds
    assert "not measured" in finds
    assert "not measured" in told.finds(known, None, None)


def test_labelled_pictures_speak_before_synthetic_ones(known, evidence):
    rates = {"n": {"normal": 10, "anomalous": 4}, "miss_rate": {"rate": 0.25}, "false_alarm_rate": {"rate": 0.1}}
    said = told.finds(known, evidence, {"overall": rates})
    assert "Of 4 labelled defective pictures it finds **3**" in said
    assert "calls 1 of 10 good ones anomalous (10 %)" in said


def test_groups_and_folds_are_said():
    own = Calibration.of({**VALUES, "folds": 5, "groups": {"a": {"n": 19, "threshold": 17.0, "scores": SCORES}}})
    assert "(1 have)" in told.decides(own)
    assert "nominally" in told.promises(own)


def test_a_histogram_is_the_same_bytes_twice_and_holds_its_counts():
    scores = {"good": np.array(SCORES), "bad": np.array([30.0, 40.0])}
    first = figures.histogram(scores, 18.0)
    assert first == figures.histogram(scores, 18.0)
    assert b"good (19)" in first
    assert b"threshold 18" in first
    assert figures.heat_scale() == figures.heat_scale()
    assert b"most a good one showed" in figures.heat_scale()
    assert b"AUROC 1.000" in figures.curve(scores["good"], scores["bad"], 18.0, "anomalies")


def test_a_history_is_drawn_where_something_was_learned_in_epochs():
    assert figures.history([{"synthetic_auroc": 0.9}]) is None
    assert b"AUROC" not in figures.history([{"loss": 2.0}, {"loss": 1.0}])
    assert b"AUROC" in figures.history([{"loss": 2.0}, {"loss": 1.0, "synthetic_auroc": 0.7}])


def test_a_speckled_mask_has_one_outline():
    mask = np.zeros((200, 200), bool)
    mask[50:150:4, 50:150:4] = True
    assert cells._whole(mask)[60:140, 60:140].all()
    assert not cells._whole(mask)[:40].any()


def test_the_data_check_names_what_was_left_out(tmp_path):
    summary = {"dataset": "d", "files": 3, "quarantined": ["a.png: empty"], "broken": ["role: x"], "expectations": []}
    data = {
        "validation": [{**summary, "unavailable": {"AUPRO": "no masks"}}],
        "pages": ["gone.html"],
        "counts": {"line/1/normal/fit": 2, "line/1/normal/calibrate": 1},
        "copies": {"pairs": 1, "said": ["one pair"]},
    }
    (section,) = checked.data_section(data, tmp_path)
    (other,) = checked.data_section({**data, "validation": [], "pages": [], "copies": {}}, tmp_path)
    assert checked.ELSEWHERE in str(other)
    assert "line/1" in str(other)
    said = str(section)
    for part in ("a.png: empty", "Broken: role: x", "AUPRO cannot be measured: no masks", "one pair", "line/1"):
        assert part in said
    assert "gone.html" not in said
    assert list(checked.data_section(None, tmp_path)) == []


@pytest.fixture
def page(patchcore, tmp_path):
    """A copy of a finished run, whose page may be changed."""
    return shutil.copytree(patchcore, tmp_path / "run")


def text_of(html):
    plain = re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL)
    return re.sub(r"\s+", " ", plain.replace("&nbsp;", " "))


def test_fit_leaves_a_page_with_the_operating_point_of_calibration_json(page):
    point = read_json(page / "calibration.json")
    said = text_of((page / "report.html").read_text())
    low, high = point["false_alarm_interval"]
    assert f"{point['threshold']:.6g}" in said
    assert f"between {percent(low)} and {percent(high)}" in said
    assert "No labelled picture has been scored" in said
    assert "Model card" in said


def test_links_of_the_page_resolve(page):
    html = (page / "report.html").read_text()
    targets = [link for link in re.findall(r'href="([^"]+)"', html) if not link.startswith(("#", "data:"))]
    assert len(targets) > 5
    assert [link for link in targets if not (page / link).exists()] == []
    anchors = set(re.findall(r'<section id="([^"]+)"', html))
    assert {link[1:] for link in re.findall(r'href="(#[^"]+)"', html)} <= anchors


def test_the_pictures_are_of_every_kind_and_small(page):
    told_of = read_json(page / "report" / "cells.json")
    assert {cell["what"] for cell in told_of} == {"good", *found.KINDS}
    for cell in told_of:
        with Image.open(page / "report" / cell["file"]) as image:
            assert max(image.size) <= 2 * cells.SIDE + 4


def test_another_operating_point_writes_the_page_again_without_the_pictures(page):
    before = (page / "report.html").read_text()
    shutil.rmtree(page / "work")
    set_point(PointRequest(page, alpha=0.4))
    after = text_of((page / "report.html").read_text())
    assert before != after
    assert f"{read_json(page / 'calibration.json')['threshold']:.6g}" in after
    assert "at most 40 % false alarms" in after


def test_an_evaluation_of_another_point_is_named_and_not_shown(page):
    (page / "evaluation").mkdir()
    write_json(page / "evaluation" / "metrics.json", {"calibration": {"threshold": -1.0}})
    said = text_of(run.rewrite(page).read_text())
    assert "at another operating point" in said
    assert "synthetic anomalies" in run.verdict(run.Run(page).known, run.Run(page).checked, None)[2]


def test_a_run_of_an_older_version_has_a_page_without_what_it_lacks(page):
    shutil.rmtree(page / "report")
    (page / "model" / "check.parquet").unlink()
    said = text_of(run.rewrite(page).read_text())
    assert "Heat maps" not in said
    assert "How many real defects it finds is not measured" in said
    assert cells.chosen(page, SimpleNamespace()) == []


def test_fit_ends_with_what_a_person_wants(page, without_test, product):
    lines = ending(page, product)
    point = read_json(page / "calibration.json")
    assert f"{point['threshold']:.6g}" in lines[0]
    assert "20 % asked for" in lines[1]
    assert percent(point["false_alarm_interval"][1]) in lines[1]
    smallest = read_json(page / "run.json")["sizes"]["smallest_defect"]
    assert lines[2] == f"defects       seen from a width of about {round(smallest)} pixels of the picture"
    assert str(page / "report.html") in lines[3]
    assert lines[4].split(maxsplit=1)[1] == f"loupe evaluate {page} --data {product}"
    assert "loupe score" in ending(without_test, product)[-1]


def test_the_card_becomes_blocks(page):
    title, parts = card.parts(page)
    assert title.startswith("PatchCore on product")
    rows = next(part for part in parts if hasattr(part, "rows")).rows
    assert dict(rows)["threshold (raw score)"] == f"{read_json(page / 'calibration.json')['threshold']:.6g}"


def test_a_section_of_measured_figures_without_a_defect(tmp_path):
    pd.DataFrame({"label": ["normal"], "score": [1.0]}).to_parquet(tmp_path / "scores.parquet")
    overall = {
        "n": {"normal": 1, "anomalous": 0},
        "image": {"not_available": "no anomalous images"},
        "pixel": {"not_available": "no masks"},
        "false_alarm_rate": {"rate": 0.0, "interval": [0.0, 0.79]},
        "miss_rate": {"not_available": "no images"},
    }
    section = measured.section("Test", {"overall": overall, "groups": {"a": overall}}, tmp_path, 2.0)
    assert "no anomalous images" in str(section)
    assert "0 % to 79 %" in str(section)
