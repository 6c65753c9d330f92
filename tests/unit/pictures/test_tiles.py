"""Where the squares of a picture lie, and the map that they make together."""

from itertools import pairwise

import numpy as np
import pytest

from components.pictures.roi import region_text
from components.pictures.tiles import OVERLAP, Box, blended, boxes, grid, pieces, placed

SHAPES = [(300, 300), (500, 1250), (1250, 500), (512, 16384), (4000, 6000), (33, 50), (1, 7), (180, 517)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("across", [1, 2, 3, 8])
def test_squares_cover_the_picture_and_overlap(shape, across):
    found = grid(*shape, across)
    covered = np.zeros(shape, bool)
    for box in found.boxes:
        covered[slice(*box.rows), slice(*box.columns)] = True
        assert box.of(covered).shape == (box.rows[1] - box.rows[0], box.columns[1] - box.columns[0])
    assert covered.all()
    for spans in found:
        side = spans[0][1] - spans[0][0]
        shared = [first[1] - second[0] for first, second in pairwise(spans)]
        assert all(part >= int(OVERLAP * side) - 1 for part in shared)
        assert {stop - start for start, stop in spans} == {side}


@pytest.mark.parametrize(
    ("shape", "across", "counts"),
    [
        ((500, 1250), 1, (1, 3)),
        ((1250, 500), 1, (3, 1)),
        ((400, 600), 1, (1, 1)),  # squeezed: the sides differ little
        ((400, 601), 1, (1, 2)),
        ((400, 400), 2, (2, 2)),
        ((4000, 6000), 4, (4, 7)),
        ((500, 1250), 0, (1, 1)),
    ],
)
def test_how_many_squares_there_are(shape, across, counts):
    found = grid(*shape, across)
    assert (len(found.rows), len(found.columns)) == counts


@pytest.mark.parametrize("shape", [(500, 1250), (90, 200), (60, 60)])
@pytest.mark.parametrize("across", [0, 1, 2, 4])
def test_maps_of_squares_make_the_map_of_the_whole_again(shape, across):
    whole = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    found = boxes(*shape, across)
    np.testing.assert_allclose(blended([box.of(whole) for box in found], found, *shape), whole, atol=1e-5)


def test_seams_are_blended_and_not_cut():
    found = boxes(100, 200, 1)
    steps = blended([np.full((100, 100), float(i), np.float32) for i in range(len(found))], found, 100, 200)
    assert np.abs(np.diff(steps[50])).max() < 0.1
    assert steps[50, 0] == 0
    assert steps[50, -1] == len(found) - 1


def test_squares_outside_the_region_of_interest_are_left_out(tmp_path):
    from PIL import Image

    drawn = np.zeros((100, 400), np.uint8)
    drawn[:, 320:] = 255
    Image.fromarray(drawn).save(tmp_path / "roi.png")
    roi = region_text(str(tmp_path / "roi.png"))
    found = boxes(100, 400, 1, roi)
    assert len(found) < len(boxes(100, 400, 1))
    assert all(box.columns[1] > 320 for box in found)
    whole = np.ones((100, 400), np.float32)
    made = blended([box.of(whole) for box in found], found, 100, 400)
    np.testing.assert_allclose(made[:, 320:], 1, atol=1e-6)
    assert len(pieces(whole, 1, roi)) == len(found)


def test_squares_keep_their_place_at_the_size_of_a_detector():
    found = boxes(500, 1250, 1)
    moved, height, width = placed(found, 256, 500, 1250)
    assert (height, width) == (256, 640)
    assert moved[0] == Box((0, 256), (0, 256))
    assert moved[-1] == Box((0, 256), (384, 640))
    assert placed([Box((0, 30), (0, 40))], 64, 30, 40) == ([Box((0, 64), (0, 64))], 64, 64)
