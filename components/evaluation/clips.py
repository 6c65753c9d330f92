"""Figures of frames: what a line can use, and the two that publications print beside it.

The headline is the AUROC over all frames of unnormalised scores: a line cannot wait for the end of a video to know its
smallest and largest score. *micro*: the same of scores scaled to 0 to 1 within each clip, as published. *macro*: the
mean over clips that hold both classes; of the others it is undefined, so their number stands beside it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

BLOCK = 30  # frames: neighbours are near copies, and are drawn together
ROUNDS = 1000


def frame_figures(
    labels: np.ndarray, scores: np.ndarray, clips: Sequence[str], rounds: int = ROUNDS, seed: int = 0
) -> dict[str, Any]:
    """*labels* bool (N,), *scores* (N,), *clips* the clip of each frame; every frame given counts.

    The interval is a 95 % bootstrap over blocks of consecutive frames; it knows nothing of other clips than these.
    """
    named = np.asarray(clips)
    both = {str(c): roc_auc_score(labels[named == c], scores[named == c]) for c in _with_both(labels, named)}
    overall: dict[str, Any] = {"not_available": "no normal or no anomalous frames"}
    if labels.any() and not labels.all():
        overall = {
            "auroc": float(roc_auc_score(labels, scores)),
            "interval": interval(labels, scores, named, rounds, seed),
            "micro": float(roc_auc_score(labels, within_clips(scores, named))),
        }
    macro = {"macro": float(np.mean(list(both.values())))} if both else {}
    return {**overall, **macro, "macro_clips": len(both), "clips": len(set(clips)), "frames": len(labels)}


def within_clips(scores: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """Scores scaled to 0 to 1 within each clip; what never changes is 0."""
    found = np.zeros(len(scores))
    for name in np.unique(clips):
        own = clips == name
        low, high = scores[own].min(), scores[own].max()
        found[own] = (scores[own] - low) / (high - low) if high > low else 0.0
    return found


def interval(
    labels: np.ndarray, scores: np.ndarray, clips: np.ndarray, rounds: int = ROUNDS, seed: int = 0
) -> list[float]:
    """95 % of the AUROC where blocks of frames are drawn anew; draws of one class alone are left out."""
    return _percentiles([roc_auc_score(labels[rows], scores[rows]) for rows in _drawn(labels, clips, rounds, seed)])


def difference(
    labels: np.ndarray, ours: np.ndarray, other: np.ndarray, clips: Sequence[str], rounds: int = ROUNDS, seed: int = 0
) -> list[float]:
    """95 % of AUROC(ours) - AUROC(other), the same blocks drawn for both."""
    return _percentiles(
        [
            roc_auc_score(labels[rows], ours[rows]) - roc_auc_score(labels[rows], other[rows])
            for rows in _drawn(labels, np.asarray(clips), rounds, seed)
        ]
    )


def blocks(clips: np.ndarray, length: int = BLOCK) -> list[np.ndarray]:
    """Row numbers of consecutive frames of one clip, *length* each or what is left at its end."""
    found = []
    for name in dict.fromkeys(clips.tolist()):
        rows = np.flatnonzero(clips == name)
        found += [rows[i : i + length] for i in range(0, len(rows), length)]
    return found


def _drawn(labels: np.ndarray, clips: np.ndarray, rounds: int, seed: int) -> Iterator[np.ndarray]:
    rng, parts = np.random.default_rng(seed), blocks(clips)
    for _ in range(rounds):
        rows = np.concatenate([parts[i] for i in rng.integers(len(parts), size=len(parts))])
        if labels[rows].any() and not labels[rows].all():
            yield rows


def _percentiles(values: list[float]) -> list[float]:
    low, high = np.quantile(values, [0.025, 0.975])
    return [float(low), float(high)]


def _with_both(labels: np.ndarray, clips: np.ndarray) -> list[str]:
    return [name for name in np.unique(clips) if 0 < labels[clips == name].sum() < (clips == name).sum()]
