"""Recall by size of the defect, on made-up masks and maps whose sizes are known."""

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import label

from components.core.records import SIZE_NAMES
from components.core.shares import share_interval
from components.evaluation.extents import add_recall, marks
from components.pictures.masks import at_size
from components.report.found import lines

SIZE = 32  # of the maps; the pictures are 16 times as large
SCALE = {"0.5": 0.1, "1.0": 1.0}


def mask(*boxes, side=512):
    """A mask with squares of so many pixels at (top, left)."""
    found = np.zeros((side, side), bool)
    for top, left, length in boxes:
        found[top : top + length, left : left + length] = True
    return found


def heat(*hot):
    """A map that is quiet but for some cells and their values."""
    found = np.zeros((SIZE, SIZE), np.float32)
    for row, column, value in hot:
        found[row, column] = value
    return found


def table(*rows):
    return pd.DataFrame(rows, columns=["group", "label", "decision"])


def counted(result, masks, maps, scale=SCALE):
    metrics = {"overall": {}, "groups": {group: {} for group in set(result["group"])}}
    known = {row: marks(one, SIZE) for row, one in masks.items()}
    add_recall(metrics, result, known, np.stack(maps), scale, SIZE)
    return metrics


@pytest.mark.parametrize("shape", [(70, 45), (32, 32), (20, 90), (9, 11), (33, 31)])
def test_a_region_has_the_cells_that_its_mask_alone_would_have(shape):
    rng = np.random.default_rng(shape[0])
    whole = rng.random(shape) > 0.8
    numbers, count = label(whole, np.ones((3, 3)))
    found = marks(whole, SIZE)
    assert len(found.extents) == len(found.sizes) == count > 1
    for number in range(count):
        alone = numbers == number + 1
        assert found.extents[number] == pytest.approx(alone.sum() ** 0.5)
        assert set(found.cells[found.owners == number]) == set(np.flatnonzero(at_size(alone, SIZE)))


def test_extents_are_roots_of_pixels_and_fall_into_the_classes_of_synthetic_anomalies():
    line = np.zeros((512, 512), bool)
    line[100, :256] = True  # as many pixels as a square of 16 x 16
    rows = [("a", "anomalous", "anomalous")] * 3
    result = table(*rows)
    masks = {0: line, 1: mask((0, 0, 15)), 2: mask((0, 0, 200))}
    found = counted(result, masks, [heat()] * 3)["overall"]["sizes"]
    assert set(found["classes"]) == {"16 to 32", "0 to 16", "128 to 100000"} <= set(SIZE_NAMES)
    assert all(part["regions"]["n"] == 1 for part in found["classes"].values())


def test_pictures_count_by_their_largest_defect_and_regions_one_by_one():
    """Two pictures: one called anomalous with a small and a large region, of which the map shows the large one; one
    that passes, whose region the map shows all the same."""
    result = table(("a", "anomalous", "anomalous"), ("b", "anomalous", "normal"), ("b", "normal", "anomalous"))
    masks = {0: mask((0, 0, 10), (256, 256, 40)), 1: mask((160, 160, 12))}
    maps = [heat((0, 0, 1.0), (17, 17, 1.1)), heat((10, 10, 5.0)), heat((3, 3, 9.0))]
    found = counted(result, masks, maps)
    whole = found["overall"]["sizes"]
    assert (whole["map_limit"], whole["unmarked"]) == (1.0, 0)
    small, large = whole["classes"]["0 to 16"], whole["classes"]["32 to 64"]
    assert small["pictures"] == {"n": 1, "found": 0, "recall": 0.0, "interval": share_interval(0, 1)}
    assert small["regions"] == {"n": 2, "found": 1, "recall": 0.5, "interval": share_interval(1, 2), "tiny": 2}
    assert large["pictures"] == {"n": 1, "found": 1, "recall": 1.0, "interval": share_interval(1, 1)}
    assert large["regions"]["found"] == 1
    assert large["regions"]["tiny"] == 1  # 40 of 512 pixels are 2.5 of 32
    own = found["groups"]["b"]["sizes"]["classes"]
    assert own == {"0 to 16": {"pictures": small["pictures"], "regions": {**large["regions"], "n": 1}}}


def test_what_is_beside_a_region_does_not_show_it():
    """A hot cell that touches no pixel of the region, next to it."""
    result = table(("a", "anomalous", "anomalous"))
    box = mask((32, 32, 16))  # the very cell (2, 2)
    for at, shown in (((2, 2), 1), ((2, 3), 0), ((1, 2), 0), ((3, 3), 0)):
        classes = counted(result, {0: box}, [heat((*at, 2.0))])["overall"]["sizes"]["classes"]
        assert classes["16 to 32"]["regions"]["found"] == shown


def test_pictures_without_a_mask_are_told_and_uncertain_ones_are_in_no_class():
    result = table(("a", "anomalous", "normal"), ("a", "anomalous", "anomalous"), ("a", "uncertain", "anomalous"))
    found = counted(result, {0: mask((0, 0, 50)), 2: mask((0, 0, 50))}, [heat()] * 3)["overall"]["sizes"]
    assert found["unmarked"] == 1
    assert found["classes"]["32 to 64"]["pictures"]["n"] == found["classes"]["32 to 64"]["regions"]["n"] == 1
    none = counted(result, {}, [heat()] * 3)["overall"]["sizes"]
    assert none == {"not_available": "no anomalous picture tells where its defects are"}
    assert lines(none) == []


def test_calibrations_without_a_scale_of_maps_tell_how_many_regions_there_are():
    result = table(("a", "anomalous", "anomalous"))
    found = counted(result, {0: mask((0, 0, 8))}, [heat()], {})["overall"]["sizes"]
    assert found["map_limit"] is None
    assert found["classes"]["0 to 16"]["regions"] == {"n": 1, "tiny": 1}
    assert lines(found) == [("under 16", "1 of 1 (100%)", "21% to 100%", "-", "-", "1")]


def test_people_read_the_smallest_defects_first():
    result = table(*[("a", "anomalous", "anomalous")] * 2)
    masks, maps = {0: mask((0, 0, 300)), 1: mask((0, 0, 20))}, [heat((0, 0, 2.0)), heat()]
    rows = lines(counted(result, masks, maps)["overall"]["sizes"])
    assert [row[0] for row in rows] == ["16 to 32", "128 or more"]
    assert [row[3] for row in rows] == ["0 of 1 (0%)", "1 of 1 (100%)"]
