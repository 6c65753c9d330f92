"""The whole metric set of one evaluation, beside the same figures by scikit-learn over all pixels, in turns.

Run by ``speed.py`` as a file: ``metrics.py PICTURES SIDE ROUNDS`` prints one row as JSON. Masks hold a defect in every
third picture, maps are noise with a hill on each defect; scores are the maps' largest values. The other side states the
definitions literally: AUPRO is the area below scikit-learn's ROC with each anomalous pixel weighed by its region.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.ndimage import label as label_regions
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from benchmarks.speed.turns import Figures, clocked, in_turns, ratio
from components.evaluation.metrics import EIGHT, bootstrap, image_metrics, pixel_metrics

LIMIT, RESAMPLES = 0.3, 1000


def drawn(pictures: int, side: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Masks, bool, and maps, float32, both (pictures, side, side)."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((pictures, side, side), bool)
    maps = rng.normal(size=masks.shape).astype(np.float32)
    for number in range(0, pictures, 3):
        top, left, tall, wide = rng.integers(side // 16, side // 4, 4)
        masks[number, top : top + tall, left : left + wide] = True
        maps[number] += 3 * gaussian_filter(masks[number].astype(np.float32), side / 32)
    return masks, maps


def ours(masks: np.ndarray, maps: np.ndarray) -> Figures:
    """What an evaluation computes."""
    labels, scores = np.asarray(masks.any((1, 2))), maps.max((1, 2))
    pixel = pixel_metrics(masks, maps, LIMIT)
    ends = bootstrap(labels, scores, RESAMPLES, 0)
    drawn = {f"{name}_{end}": value for name, pair in ends.items() for end, value in enumerate(pair)}
    image = {f"image_{name}": value for name, value in image_metrics(labels, scores).items()}
    return image | {name: pixel[name] for name in ("auroc", "ap", "f1_max", "aupro")} | drawn


def literal(masks: np.ndarray, maps: np.ndarray) -> Figures:
    """The same by a call of scikit-learn for each figure; the interval draws what ours draws."""
    labels, scores = np.asarray(masks.any((1, 2))), maps.max((1, 2))
    truth, values = masks.ravel(), maps.ravel()
    image = {f"image_{name}": value for name, value in three(labels, scores).items()}
    return image | three(truth, values) | {"aupro": aupro(masks, values)} | interval(labels, scores)


def three(truth: np.ndarray, values: np.ndarray) -> Figures:
    precision, recall, _ = precision_recall_curve(truth, values)
    return {
        "auroc": float(roc_auc_score(truth, values)),
        "ap": float(average_precision_score(truth, values)),
        "f1_max": float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max()),
    }


def aupro(masks: np.ndarray, values: np.ndarray) -> float:
    """Bergmann et al. (CVPR 2020): each region weighs the same, whatever its size."""
    weights = np.ones(masks.shape)
    for picture, mask in zip(weights, masks, strict=True):
        regions, count = label_regions(mask, EIGHT)
        for number in range(1, count + 1):
            picture[regions == number] = 1 / (regions == number).sum()
    fpr, pro, _ = roc_curve(masks.ravel(), values, sample_weight=weights.ravel(), drop_intermediate=False)
    inside = fpr <= LIMIT
    fpr, pro = np.r_[fpr[inside], LIMIT], np.r_[pro[inside], np.interp(LIMIT, fpr, pro)]
    return float(np.trapezoid(pro, fpr) / LIMIT)


def interval(labels: np.ndarray, scores: np.ndarray) -> Figures:
    rng, good, bad = np.random.default_rng(0), scores[~labels], scores[labels]
    truth = np.r_[np.zeros(len(good), bool), np.ones(len(bad), bool)]
    each = [np.r_[rng.choice(good, len(good)), rng.choice(bad, len(bad))] for _ in range(RESAMPLES)]
    both = ("auroc", roc_auc_score), ("ap", average_precision_score)
    ends = {name: np.quantile([figure(truth, values) for values in each], [0.025, 0.975]) for name, figure in both}
    return {f"{name}_{end}": float(value) for name, pair in ends.items() for end, value in enumerate(pair)}


def row(pictures: int, side: int, rounds: int) -> dict[str, Any]:
    """Seconds of both sides in turns, and how far their figures lie apart."""
    given = drawn(pictures, side)
    figures: dict[str, Figures] = {}

    def compute(call: Callable[..., Figures]) -> None:
        figures[call.__name__] = call(*given)

    turns = in_turns({call.__name__: clocked(partial(compute, call)) for call in (ours, literal)}, rounds)
    spent = {name: [figure["s"] for figure in found] for name, found in turns.items()}
    faster, low, high = ratio(spent["literal"], spent["ours"])
    apart = max(abs(figures["ours"][name] - value) for name, value in figures["literal"].items())
    seconds = {f"{name}_s": float(np.median(found)) for name, found in spent.items()}
    about = {"pictures": pictures, "side": side, "rounds": rounds}
    return about | seconds | {"times_faster": faster, "low": low, "high": high, "apart": apart}


if __name__ == "__main__":
    json.dump([row(*map(int, sys.argv[1:4]))], sys.stdout, indent=1)
