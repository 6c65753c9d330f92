"""Regions of a heat map against an independent labelling, and through a bundle that sees squares of a region."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from components.core.errors import PartlyScoredError
from components.decision.batch import entry, regions_of, score
from components.decision.bundle import Bundle
from components.pictures import regions as module
from components.pictures.framing import inside, quiet
from components.pictures.regions import MOST, as_text, of_text, regions
from components.pictures.roi import written
from components.pictures.tiles import blended, boxes
from tests.conftest import tile

SCALE = {"0.99": 0.5, "1.0": 1.0}


def by_scipy(heat, limit):
    label, count = ndimage.label(heat > limit, np.ones((3, 3)))
    told = []
    for i, (rows, columns) in enumerate(ndimage.find_objects(label), 1):
        y, x = ndimage.center_of_mass(label == i)
        told.append(
            {
                "box": [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start],
                "area": int((label == i).sum()),
                "centroid": [round(x, 2), round(y, 2)],
                "peak": float(heat[label == i].max()),
            }
        )
    assert len(told) == count
    return sorted(told, key=lambda one: (-one["peak"], one["box"]))


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 24), st.integers(1, 24), st.floats(0.02, 0.98))
def test_regions_are_those_of_another_labelling(seed, height, width, share):
    heat = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    scale = {"0.99": -1.0, "1.0": float(np.quantile(heat, share))}
    expected = by_scipy(heat, scale["1.0"])
    if expected:
        found = regions(heat, scale, 1000)
        centroids = [[np.array(one.pop("centroid")) for one in each] for each in (found, expected)]
        assert found == expected
        for one, other in zip(*centroids, strict=True):
            assert np.abs(one - other).max() < 0.0101, "rounding may fall to either side"


def test_a_snake_is_one_region():
    mask = np.zeros((41, 41))
    mask[::2] = 2.0  # rows, joined at their ends in turns
    mask[1::4, -1] = mask[3::4, 0] = 2.0
    (one,) = regions(mask, SCALE)
    assert one["box"] == [0, 0, 41, 41]
    assert one["area"] == int((mask > 0).sum())


def test_few_are_told_the_highest_first():
    heat = np.zeros((64, 64))
    heat[::2, ::2] = 1 + np.arange(1024).reshape(32, 32) / 1024
    found = regions(heat, SCALE)
    assert len(found) == MOST
    assert found[0] == {"box": [62, 62, 1, 1], "area": 1, "centroid": [62.0, 62.0], "peak": heat.max()}
    assert [one["peak"] for one in found] == sorted((one["peak"] for one in found), reverse=True)


def test_below_the_limit_the_most_visible_spot_is_told():
    heat = np.zeros((20, 30))
    heat[2:5, 3:9], heat[10:12, 20:22] = 0.6, 0.8
    (one,) = regions(heat, SCALE)
    assert one["box"] == [20, 10, 2, 2]
    assert regions(np.zeros((20, 30)), SCALE) == []


def test_the_text_of_a_column_is_read_back():
    found = regions(np.pad([[2.0]], 3), SCALE)
    assert of_text(as_text(found)) == found
    assert (as_text(None), of_text(None), as_text([])) == (None, None, "[]")


def test_places_are_those_of_the_picture_through_squares_and_a_region_of_interest():
    height, width, region = 120, 200, np.zeros((120, 200), bool)
    region[20:110, 30:190] = True
    roi = written(region, (width, height))
    found = boxes(height, width, 2, roi)
    mark = np.zeros((height, width), np.float32)
    mark[60:70, 100:130] = 3.0
    mark[0:10, 0:10] = 9.0  # outside: what a model says there is not counted
    heat = quiet(blended([box.of(mark) for box in found], found, height, width), roi)
    assert inside(roi, height, width).sum() == region.sum()
    (one,) = regions(heat, SCALE)
    assert (one["box"], one["area"], one["centroid"]) == ([100, 60, 30, 10], 300, [114.5, 64.5])


@pytest.fixture
def scratched(tmp_path):
    pixels = tile(201)
    pixels[30:50, 20:44] = 250
    Image.fromarray(pixels).save(tmp_path / "scratched.png")
    Image.fromarray(tile(3)).save(tmp_path / "good.png")
    return tmp_path


def test_a_bundle_tells_where_the_scratch_is_in_every_form(bundle, scratched):
    files = [scratched / "scratched.png", scratched / "good.png"]
    bad, good = json.loads(score(bundle, files, scratched / "out.json").read_text())
    x, y, w, h = bad["regions"][0]["box"]
    assert x < 44
    assert x + w > 20
    assert y < 50
    assert y + h > 30
    assert good["regions"] == ([] if good["decision"] == "normal" else good["regions"])
    text = score(bundle, files, scratched / "out.csv").read_text()
    assert '""box""' in text
    (scratched / "broken.png").write_text("none")
    with pytest.raises(PartlyScoredError):
        score(bundle, [*files, scratched / "broken.png"], scratched / "more.json")
    assert json.loads((scratched / "more.json").read_text())[-1]["regions"] is None


def test_a_bundle_without_a_limit_of_heat_maps_tells_no_region(bundle, monkeypatch):
    opened = Bundle.open(bundle)
    monkeypatch.setattr(type(opened.calibration), "scale", {}, raising=False)
    object.__setattr__(opened.calibration, "scale", {})
    assert regions_of(opened, np.ones((4, 4)), "anomalous") is None
    assert entry(opened, tile(1), 1.0, np.zeros(16), heat=np.ones((96, 96)))["regions"] is None
    assert module.VISIBLE in Bundle.open(bundle).calibration.scale
