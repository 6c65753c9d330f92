"""Detectors compared on the same pictures: how well scores rank, how sure a difference is."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from components.core.records import NORMAL, NUISANCE

RESAMPLED = 500
DRAWS = 1000
PICTURES = ["image_id", "kind"]  # columns that say which pictures a detector was checked with


class Sides(NamedTuple):
    """Scores of good and of anomalous pictures."""

    good: np.ndarray
    anomalous: np.ndarray


class Difference(NamedTuple):
    """Of two figures, with its 95 % interval."""

    value: float
    low: float
    high: float


def difference(one: Sides, other: Sides, seed: int = 0) -> Difference:
    """Image AUROC of *one* less that of *other*, of the same pictures in one order.

    For the interval pictures are drawn again DRAWS times within each side, the same for both.
    """
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(DRAWS):
        good, bad = (rng.integers(0, len(side), len(side)) for side in one)
        drawn.append(auroc(one.good[good], one.anomalous[bad]) - auroc(other.good[good], other.anomalous[bad]))
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Difference(auroc(*one) - auroc(*other), float(low), float(high))


def auroc(good: np.ndarray, made: np.ndarray) -> float:
    """Probability that one of *made* has the higher score than one of *good*; equal scores count half."""
    from scipy.stats import rankdata  # half a second, which most of those who come by this file need not

    ranks = rankdata(np.concatenate([good, made]))[len(good) :]
    return float((ranks.sum() - len(made) * (len(made) + 1) / 2) / (len(good) * len(made)))


def worth(table: pd.DataFrame) -> float:
    """Mean over the kinds of anomaly of the AUROC against normals and nuisances."""
    return _worth(_by_kind(table))


def share_better(one: pd.DataFrame, other: pd.DataFrame, seed: int) -> float:
    """Share of resamplings, the same for both, in which *one* is worth more; pictures are drawn within their kind.

    0 where they were checked with different pictures: nothing is certain then.
    """
    if not one[PICTURES].equals(other[PICTURES]):
        return 0.0
    rng, ours, theirs = np.random.default_rng(seed), _by_kind(one), _by_kind(other)
    better = 0
    for _ in range(RESAMPLED):
        drawn = {kind: rng.integers(0, len(part), len(part)) for kind, part in ours.items()}
        pairs = ({kind: part[drawn[kind]] for kind, part in scores.items()} for scores in (ours, theirs))
        better += _worth(next(pairs)) > _worth(next(pairs))
    return better / RESAMPLED


def _worth(scores: Mapping[str, np.ndarray]) -> float:
    good = {kind: part for kind, part in scores.items() if kind == NORMAL or kind.startswith(NUISANCE)}
    against = np.concatenate(list(good.values()))
    return float(np.mean([auroc(against, part) for kind, part in scores.items() if kind not in good]))


def _by_kind(table: pd.DataFrame) -> dict[str, np.ndarray]:
    return {str(kind): part.to_numpy() for kind, part in table.groupby("kind")["score"]}
