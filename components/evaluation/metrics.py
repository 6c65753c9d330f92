"""Image, pixel and region metrics on raw scores; exact, fast enough for tens of millions of pixels.

AUPRO after Bergmann et al. (CVPR 2020): the mean overlap of ground-truth regions over the false-positive rate of normal
pixels, integrated to a limit and divided by it.
"""

from typing import Any

import numpy as np
from scipy.ndimage import label as label_regions
from scipy.ndimage import median_filter
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

METRIC_VERSION = "2"  # 2: a pixel is anomalous where any touched pixel of the mask is
EIGHT = np.ones((3, 3), int)  # regions are 8-connected


def image_metrics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """AUROC, AP and F1-max; *labels* bool (N,), both classes present."""
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    return {
        "auroc": float(roc_auc_score(labels, scores)),
        "ap": float(average_precision_score(labels, scores)),
        "f1_max": float(f1.max()),
    }


def bootstrap(labels: np.ndarray, scores: np.ndarray, rounds: int, seed: int) -> dict[str, list[float]]:
    """95 % percentile intervals over images, classes resampled apart: AUROC and AP."""
    rng = np.random.default_rng(seed)
    good, bad = scores[~labels], scores[labels]
    drawn = np.array([_resampled(good, bad, rng) for _ in range(rounds)])
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(("auroc", "ap"))}


def _resampled(good: np.ndarray, bad: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    g, b = np.sort(rng.choice(good, len(good))), np.sort(rng.choice(bad, len(bad)))
    return _auroc(g, b), _precision(g, b)


def _auroc(good: np.ndarray, bad: np.ndarray) -> float:
    """Of ordered scores; a tie counts half."""
    below = np.searchsorted(good, bad, "left") + np.searchsorted(good, bad, "right")
    return float(below.mean() / (2 * len(good)))


def _precision(good: np.ndarray, bad: np.ndarray) -> float:
    """Average precision of ordered scores: recall rises at anomalies alone, by the same step at each."""
    hits = len(bad) - np.searchsorted(bad, bad, "left")
    return float(np.mean(hits / (hits + len(good) - np.searchsorted(good, bad, "left"))))


def pixel_metrics(
    masks: np.ndarray, maps: np.ndarray, limit: float = 0.3, counts: np.ndarray | None = None
) -> dict[str, Any]:
    """Pixel AUROC, AP, F1-max and AUPRO of (N, H, W) bool masks and float32 maps, exact; of the normal pixels those
    that *counts*, bool (H, W), says, if it is given.

    Normal pixels are sorted by value alone; only at values of anomalous ones, which are few, does a curve turn.
    """
    values, weights = maps[masks], _weights(masks)
    order = np.argsort(values)[::-1]
    values, normal = values[order], np.sort(maps[~masks if counts is None else ~masks & counts])
    ends = np.flatnonzero(np.r_[values[1:] != values[:-1], True])  # ties share one threshold
    tp, overlap = (ends + 1).astype(np.float64), np.cumsum(weights[order])[ends]
    above, fp = (len(normal) - np.searchsorted(normal, values[ends], side) for side in ("right", "left"))
    # Up to a value the false positives above it, then those that tie with it: two points of a curve.
    fpr = np.r_[np.stack([above, fp], 1).ravel() / len(normal), 1.0]
    recall, covered = (_stepped(y / y[-1]) for y in (tp, overlap))
    return {
        "auroc": _area(fpr, recall),
        "ap": float(np.sum(np.diff(tp / tp[-1], prepend=0.0) * tp / (tp + fp))),
        "f1_max": float((2 * tp / (tp + fp + tp[-1])).max()),
        "aupro": limited_area(fpr, covered, limit),
        "aupro_limit": limit,
        "curve": _thinned(fpr, covered),
    }


def _stepped(y: np.ndarray) -> np.ndarray:
    """What a curve has before and at each of its thresholds, and at its end."""
    return np.r_[np.stack([np.r_[0.0, y[:-1]], y], 1).ravel(), 1.0]


def binarised(image: np.ndarray, deviations: float = 2.75, window: int = 7) -> np.ndarray:
    """What a map (H, W) calls anomalous by a rule that searches no threshold (CMA-AE, arXiv 2208.03879; its numbers
    are reconstructed): medians of *window* pixels that exceed the map's own mean by *deviations*."""
    smooth = median_filter(image, window, mode="nearest")
    return np.asarray(smooth > smooth.mean() + deviations * smooth.std())


def fixed_f1(masks: np.ndarray, maps: np.ndarray, counts: np.ndarray | None = None) -> float:
    """F1 over the pixels of the anomalous images, maps binarised by the fixed rule. It knows no absolute level and
    marks something in most normal images, which are left out for that reason. *counts* as in ``pixel_metrics``."""
    found = hits = wanted = 0
    for mask, image in zip(masks, maps, strict=True):
        if mask.any():
            marked = binarised(image) if counts is None else binarised(image) & (counts | mask)
            found, hits, wanted = found + marked.sum(), hits + (marked & mask).sum(), wanted + mask.sum()
    return float(2 * hits / (found + wanted))


def _weights(masks: np.ndarray) -> np.ndarray:
    """Of every anomalous pixel, in the order of ``maps[masks]``, one over the size of its region."""
    found = []
    for mask in masks:
        numbered = label_regions(mask, EIGHT)[0][mask]
        found.append(1 / np.bincount(numbered)[numbered])
    return np.concatenate(found)


def _area(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.trapezoid(np.r_[0.0, y], np.r_[0.0, x]))


def limited_area(x: np.ndarray, y: np.ndarray, limit: float) -> float:
    """The area below (x, y) from 0 to *limit* over *limit*; the last piece is cut by interpolation."""
    x, y = np.r_[0.0, x], np.r_[0.0, y]
    inside = x <= limit
    last = y[inside][-1]
    beyond = np.flatnonzero(~inside)
    if len(beyond):
        x0, x1, y1 = x[inside][-1], x[beyond[0]], y[beyond[0]]
        last = last + (y1 - last) * (limit - x0) / (x1 - x0)
    return float(np.trapezoid(np.r_[y[inside], last], np.r_[x[inside], limit]) / limit)


def _thinned(x: np.ndarray, y: np.ndarray, points: int = 400) -> list[list[float]]:
    at = np.unique(np.searchsorted(x, np.linspace(0, 1, points)).clip(0, len(x) - 1))
    return [[float(x[i]), float(y[i])] for i in at]
