"""Metrics against slow and obvious twins."""

import numpy as np
import pytest
from scipy.ndimage import label
from sklearn.metrics import average_precision_score, roc_auc_score

from components.evaluation.metrics import binarised, bootstrap, fixed_f1, image_metrics, limited_area, pixel_metrics


def literal_aupro(masks, maps, limit):
    """Every threshold, every region, one by one."""
    regions = []
    for k, mask in enumerate(masks):
        numbered, n = label(mask, np.ones((3, 3)))
        regions += [(k, numbered == r) for r in range(1, n + 1)]
    points = []
    for t in np.unique(maps)[::-1]:
        hot = maps >= t
        overlap = np.mean([hot[k][region].mean() for k, region in regions])
        points.append(((hot & ~masks).sum() / (~masks).sum(), overlap))
    x, y = np.array(points).T
    return limited_area(x, y, limit)


def random_case(seed, ties):
    rng = np.random.default_rng(seed)
    masks = np.zeros((4, 16, 16), bool)
    masks[0, 2:5, 3:9] = masks[0, 10:12, 10:12] = masks[2, 7, 7] = True
    maps = rng.normal(size=masks.shape) + 1.5 * masks
    return masks, (maps.round(0 if ties else 6)).astype(np.float32)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_aupro_equals_the_literal_definition(seed, ties, limit):
    masks, maps = random_case(seed, ties)
    assert pixel_metrics(masks, maps, limit)["aupro"] == pytest.approx(literal_aupro(masks, maps, limit), abs=1e-6)


def test_pixel_metrics_equal_scikit_learn():
    masks, maps = random_case(9, ties=True)
    found = pixel_metrics(masks, maps)
    assert found["auroc"] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()))
    assert found["ap"] == pytest.approx(average_precision_score(masks.ravel(), maps.ravel()))


def test_perfect_and_blind_maps():
    masks, _ = random_case(0, ties=False)
    assert pixel_metrics(masks, masks.astype(np.float32))["aupro"] == pytest.approx(1.0)
    blind = pixel_metrics(masks, np.zeros(masks.shape, np.float32))
    assert blind["aupro"] == pytest.approx(0.15)  # a straight line to (1, 1), cut at 0.3
    assert blind["auroc"] == pytest.approx(0.5)


def test_image_metrics_of_a_known_ranking():
    found = image_metrics(np.array([False, True, False, True]), np.array([0.1, 0.9, 0.8, 0.7]))
    assert found["auroc"] == 0.75
    assert found["f1_max"] == pytest.approx(0.8)


def square(side: int = 12, at: int = 8) -> tuple[np.ndarray, np.ndarray]:
    maps = np.zeros((2, 64, 64), np.float32)
    maps[0, at : at + side, at : at + side] = 1
    return maps > 0, maps


def test_the_fixed_rule_needs_no_threshold_of_the_scores():
    rng = np.random.default_rng(0)
    one = rng.random((64, 64)) + 5 * square()[1][0]
    found = binarised(one)
    assert found[14, 14]
    assert not found[:, 30:].any()
    np.testing.assert_array_equal(found, binarised(1000 * one - 7))
    one[40, 40] = 50  # a single pixel is noise
    assert not binarised(one)[40, 40]
    assert not binarised(np.full((16, 16), 3.0)).any()


def test_f1_counts_pixels_of_anomalous_images_under_the_fixed_rule():
    masks, maps = square()
    assert 0.8 < fixed_f1(masks, maps) < 1  # the median takes the corners
    maps[1, 30:46, 30:46] = 1  # marks of a normal image count for nothing
    assert 0.8 < fixed_f1(masks, maps) < 1
    masks[1, 0, 0] = True
    assert fixed_f1(masks, maps) < 0.6


def test_pixels_outside_the_region_are_in_no_figure():
    rng = np.random.default_rng(3)
    maps, masks, counts = (
        rng.random((4, 20, 30)).astype(np.float32),
        np.zeros((4, 20, 30), bool),
        np.ones((20, 30), bool),
    )
    masks[:2, 5:10, 5:10], counts[:, 20:] = True, False
    maps[masks] += 0.5
    found = pixel_metrics(masks, maps, 0.3, counts)
    assert found == pixel_metrics(masks[..., :20], maps[..., :20])
    loud = np.where(counts, maps, 9)
    assert pixel_metrics(masks, loud, 0.3, counts) == found
    assert pixel_metrics(masks, loud) != found
    defect, spots = np.zeros((1, 60, 90), bool), np.zeros((1, 60, 90))
    defect[:, 10:20, 10:20] = True
    spots[defect], spots[:, 40:50, 70:80] = 9, 9  # one spot as large outside
    assert fixed_f1(defect, spots, np.arange(90) < 60) > 1.3 * fixed_f1(defect, spots)


def test_intervals_draw_the_average_precision_of_scikit_learn():
    rng = np.random.default_rng(3)
    labels = rng.random(80) < 0.3
    scores = np.round(rng.normal(size=80) + labels, 1)  # many ties
    found, drawn = bootstrap(labels, scores, 40, 5), np.random.default_rng(5)
    good, bad = scores[~labels], scores[labels]
    truth = np.r_[np.zeros(len(good), bool), np.ones(len(bad), bool)]
    values = [np.r_[drawn.choice(good, len(good)), drawn.choice(bad, len(bad))] for _ in range(40)]
    for name, figure in (("auroc", roc_auc_score), ("ap", average_precision_score)):
        each = [figure(truth, value) for value in values]
        assert found[name] == pytest.approx(list(np.quantile(each, [0.025, 0.975])), abs=1e-12)
