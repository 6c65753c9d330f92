"""Figures of a report as SVG: small, sharp on every screen, the same bytes for the same numbers."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from sklearn.metrics import roc_auc_score, roc_curve

from components.pictures.heat import LIMIT, ramp

mpl.use("Agg")
STYLE: Any = {
    "svg.hashsalt": "loupe",  # ids of a figure would be random
    "svg.fonttype": "none",  # letters stay letters: a tenth of the bytes
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a96a3",
    "axes.labelcolor": "#1b2430",
    "xtick.color": "#5a6675",
    "ytick.color": "#5a6675",
    "axes.grid": True,
    "grid.color": "#e6eaef",
    "legend.frameon": False,
}
GOOD, BAD, TESTED, LINE = "#0b6e75", "#d1603d", "#7a5ca8", "#1b2430"
COLOURS = (GOOD, BAD, "#4a90c2", TESTED)
SIZE = (4.8, 3.2)  # inches: its letters are readable on a telephone and beside another figure


@contextmanager
def drawing(size: tuple[float, float] = SIZE, rows: int = 1) -> Iterator[tuple[Any, Any]]:
    """A figure and its axes in the style of the reports, closed behind the block."""
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(rows, 1, figsize=size, layout="constrained")
        try:
            yield figure, axes
        finally:
            plt.close(figure)


def svg(figure: Any) -> bytes:
    """The figure's file; nothing in it depends on the day or the version."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def png(figure: Any, dpi: int = 110) -> bytes:
    """The same as PNG, for pages that take no SVG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, metadata={"Software": None})
    return stream.getvalue()


def histogram(scores: Mapping[str, np.ndarray], threshold: float) -> bytes:
    """Raw scores by what the pictures are, as shares of their own kind, and the threshold."""
    with drawing() as (figure, axis):
        every = np.concatenate([*scores.values(), [threshold]])
        # One far score would press all others into a single bar; what lies beyond stands in the last one.
        high = max(np.quantile(every, 0.98), threshold) + 0.1 * np.ptp(np.quantile(every, [0.02, 0.98]))
        edges = np.linspace(every.min(), max(high, every.min() + 1e-9), 31)
        for (name, values), colour in zip(scores.items(), COLOURS, strict=False):
            heights, _ = np.histogram(values.clip(max=edges[-1]), edges)
            axis.stairs(heights / max(1, len(values)), edges, fill=True, alpha=0.45, color=colour)
            axis.stairs(heights / max(1, len(values)), edges, color=colour, label=f"{name} ({len(values)})")
        axis.axvline(threshold, color=LINE, linestyle="--", linewidth=1.2, label=f"threshold {threshold:.4g}")
        axis.set(xlabel="raw score (higher is more anomalous)", ylabel="share of its kind")
        figure.legend(loc="outside upper left", ncols=2, fontsize=8.5)
        return svg(figure)


def heat_scale() -> bytes:
    """The ramp of all heat maps with the mark of the most that a good picture showed."""
    with drawing((4.8, 0.75)) as (figure, axis):
        axis.imshow(ramp(256)[None], aspect="auto", extent=(0, 1, 0, 1), interpolation="nearest")
        axis.axvline(LIMIT, color=LINE, linewidth=2.5)
        axis.set_xticks([0, LIMIT, 1], labels=["like good pictures", "most a good one showed", "twice as far"])
        axis.set_yticks([])
        axis.grid(False)
        for label, side in zip(axis.get_xticklabels(), ("left", "center", "right"), strict=True):
            label.set_horizontalalignment(side)
        return svg(figure)


def curve(good: np.ndarray, anomalous: np.ndarray, threshold: float, what: str) -> bytes:
    """Share of *what* found over the share of good pictures called anomalous, and where the threshold puts us."""
    labels, scores = np.r_[np.zeros(len(good)), np.ones(len(anomalous))], np.r_[good, anomalous]
    alarms, finds, _ = roc_curve(labels, scores)
    with drawing() as (figure, axis):
        axis.plot(alarms, finds, color=GOOD, label=f"AUROC {roc_auc_score(labels, scores):.3f}")
        at = (good > threshold).mean(), (anomalous > threshold).mean()
        axis.plot(*at, "o", color=BAD, markersize=9, label="operating point", zorder=3)
        axis.plot([0, 1], [0, 1], color="#c3ccd6", linestyle=":", label="chance")
        axis.set(xlabel="share of good pictures called anomalous", ylabel=f"share of {what} found")
        axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.04))
        axis.legend(loc="lower right", fontsize=8.5)
        return svg(figure)


def history(records: Sequence[Mapping[str, Any]]) -> bytes | None:
    """Loss and AUROC on synthetic anomalies over epochs; None where nothing was learned in epochs."""
    steps = [record for record in records if "loss" in record]
    if len(steps) < 2:
        return None
    checked = [(number, s["synthetic_auroc"]) for number, s in enumerate(steps, 1) if "synthetic_auroc" in s]
    with drawing(rows=1 + bool(checked)) as (figure, axes):
        first = np.atleast_1d(axes)[0]
        first.plot(range(1, len(steps) + 1), [s["loss"] for s in steps], color=GOOD, marker=".")
        first.set(ylabel="loss")
        if checked:
            axes[1].plot(*zip(*checked, strict=True), color=BAD, marker=".")
            axes[1].set(ylabel="AUROC")
            axes[1].sharex(first)
        figure.supxlabel("epoch", fontsize=10)
        return svg(figure)
