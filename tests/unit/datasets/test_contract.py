"""The contract of one row at a time, and the page that is read without a network."""

import re

import pandas as pd
import pytest

from components.datasets.settings import ValidationSettings
from components.datasets.validation.contract import breaches, repeats
from components.datasets.validation.offline import make_offline

GOOD = {
    "image_id": "train/good/a.png", "label": "normal", "role": "train", "mask": None, "mask_rule": None, "sha256": "a",
    "width": 64, "height": 48, "mode": "RGB", "brightness": 0.5, "contrast": 0.1, "problem": None,
}  # fmt: skip
BAD = {"label": "anomalous", "role": "test", "mask": "gt/a.png"}
SETTINGS = ValidationSettings(
    modes=("RGB",), min_side=48, max_side=64, brightness=(0.1, 0.9), min_train_normals=1, expect_masks=True
)


def table(*changes):
    rows = ({**GOOD, "image_id": f"{i}.png", "sha256": str(i), **change} for i, change in enumerate(changes))
    return pd.DataFrame(rows)


def reasons(*changes, settings=SETTINGS):
    """Why each row breaks the contract, empty where it keeps it."""
    return list(breaches(table(*changes), settings).fillna(""))


@pytest.mark.parametrize("change", [{}, BAD, {"width": 48, "height": 64}, {"brightness": 0.1}, {"label": "uncertain"}])
def test_what_keeps_the_contract_has_no_reason(change):
    assert reasons(change) == [""]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"problem": "0.png: is not an image"}, "0.png: is not an image"),
        ({"mode": "L"}, r"mode L is not in the contract \(RGB\).*validation.modes"),
        ({"width": 65}, "65 x 48 is outside 48 to 64 pixels.*validation.max_side"),
        ({"height": 47}, "64 x 47 is outside 48 to 64 pixels.*validation.min_side"),
        ({"brightness": 0.95}, "brightness 0.950 is outside 0.1 to 0.9.*validation.brightness"),
        ({"contrast": 0.0}, "shows nothing.*validation.min_contrast"),
        ({**BAD, "mask": None}, "an anomalous image without a mask.*validation.expect_masks"),
        ({**BAD, "mask_rule": "unknown: cannot be read (x)"}, "its mask gt/a.png: cannot be read"),
    ],
)
def test_each_breach_is_one_sentence_with_the_key_that_allows_it(change, sentence):
    kept, broken = reasons({}, change)
    assert kept == ""
    assert re.search(sentence, broken), broken


def test_masks_are_asked_for_only_where_they_are_expected():
    settings = ValidationSettings(modes=("RGB",), min_side=48, max_side=64)
    assert reasons({**BAD, "mask": None}, settings=settings) == [""]


def test_the_same_bytes_with_two_labels_are_both_out():
    found = reasons({"sha256": "x"}, {"sha256": "x", **BAD}, {})
    assert ["two labels: 0.png (normal), 1.png (anomalous)" in reason for reason in found] == [True, True, False]


def test_of_repeats_the_one_of_the_test_side_stays():
    again = repeats(table({"sha256": "x"}, {"sha256": "x", "role": "test"}, {"sha256": "x", "role": "test"}, {}))
    assert again.to_dict() == {0: "the same bytes as 1.png", 2: "the same bytes as 1.png"}


def test_the_pages_need_no_network_and_show_names_as_they_are(tmp_path):
    page = tmp_path / "validations/part/all.html"
    page.parent.mkdir(parents=True)
    page.write_text(
        "<head><script src='https://cdn/x.js'></script><link rel=stylesheet href='https://cdn/x.css'></head>kept"
    )
    summary = {
        "dataset": "part <1>",
        "broken": ["too few"],
        "expectations": [{"expectation": "set", "column": "mode", "success": False, "unexpected": ["<a>.png"]}],
        "counts": {"train": 2},
        "quarantined": ["<b>.png: mode"],
    }
    text = make_offline(tmp_path, summary).read_text()
    for said in (
        "part &lt;1&gt;: contract broken",
        "<td>broken</td><td>&lt;a&gt;.png</td>",
        "<td>&lt;b&gt;.png: mode</td>",
        "href='validations/part/all.html'",
    ):
        assert said in text
    assert "https:" not in text + page.read_text()
    assert page.read_text().endswith("kept")
