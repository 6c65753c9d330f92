"""Detectors compared on the same pictures."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from components.decision import paired
from components.decision.paired import Sides, auroc, difference


def sides(gap, seed=0, n=60):
    rng = np.random.default_rng(seed)
    return Sides(rng.normal(0, 1, n), rng.normal(gap, 1, n))


def test_the_difference_is_that_of_the_areas_and_lies_in_its_interval():
    one, other = sides(3.0), sides(1.0, seed=1)
    found = difference(one, other)
    areas = [roc_auc_score([0] * 60 + [1] * 60, np.concatenate(each)) for each in (one, other)]
    assert found.value == pytest.approx(areas[0] - areas[1])
    assert 0 < found.low < found.value < found.high
    assert found == difference(one, other)


def test_the_same_scores_differ_by_nothing_in_every_draw():
    """The draws are paired: what both say of a picture is drawn together."""
    one = sides(1.0)
    assert difference(one, Sides(2 * one.good, 2 * one.anomalous)) == (0, 0, 0)


def test_an_interval_is_wider_with_fewer_pictures(monkeypatch):
    monkeypatch.setattr(paired, "DRAWS", 300)
    few, many = (difference(sides(1.5, n=n), sides(1.0, 1, n)) for n in (15, 240))
    assert few.high - few.low > 2 * (many.high - many.low)


def test_auroc_of_equal_scores_is_half():
    assert auroc(np.ones(3), np.ones(4)) == 0.5
