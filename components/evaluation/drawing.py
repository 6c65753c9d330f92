"""Curves, histograms and the gallery of heat maps, drawn on the calibrated scale (never per image)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.metrics import precision_recall_curve, roc_curve

from components.core.artefacts import read_json
from components.pictures.clips import target
from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.heat import LIMIT, ends, painted, ramp
from components.pictures.kept import decode
from components.report.blocks import Figures, Page, Section, Table, Text
from components.report.found import HEAD
from components.report.measured import gallery_figure
from components.report.page import write

mpl.use("Agg")
PLAIN = {"Software": None}  # no version in the file: same picture, same bytes
ROWS = ("most anomalous", "missed", "false alarms", "typical normals")


def curves(
    out: Path, result: pd.DataFrame, region_curve: list[list[float]] | None, history: Path, threshold: float
) -> None:
    """roc.csv, pr.csv, pro.csv, curves.png, histogram.png and, for gradient methods, history.png."""
    known = result[result["label"] != "uncertain"]
    labels = (known["label"] == "anomalous").to_numpy()
    drawn: dict[str, np.ndarray] = {}
    if labels.any() and not labels.all():
        fpr, tpr, _ = roc_curve(labels, known["score"])
        precision, recall, _ = precision_recall_curve(labels, known["score"])
        drawn = {"roc": np.c_[fpr, tpr], "pr": np.c_[recall, precision]}
    if region_curve:
        drawn["pro"] = np.array(region_curve)
    names = {"roc": ("fpr", "tpr"), "pr": ("recall", "precision"), "pro": ("fpr", "overlap")}
    for name, points in drawn.items():
        pd.DataFrame(points, columns=list(names[name])).to_csv(out / f"{name}.csv", index=False)
    _curve_picture(out, drawn, names)
    _histogram(out, result, threshold)
    if history.exists():
        _history(out, read_json(history))


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata=PLAIN)
    plt.close(figure)


def _curve_picture(out: Path, drawn: dict[str, np.ndarray], names: dict[str, tuple[str, str]]) -> None:
    figure, axes = plt.subplots(1, max(1, len(drawn)), figsize=(4 * max(1, len(drawn)), 3.6), squeeze=False)
    for axis, (name, points) in zip(axes[0], drawn.items(), strict=False):
        axis.plot(points[:, 0], points[:, 1])
        axis.set(title=name.upper(), xlabel=names[name][0], ylabel=names[name][1], xlim=(0, 1), ylim=(0, 1.02))
    _save(figure, out / "curves.png")


def _histogram(out: Path, result: pd.DataFrame, threshold: float) -> None:
    figure, axis = plt.subplots(figsize=(6, 3.4))
    bins = np.histogram_bin_edges(result["score"].astype(float), 40).tolist()
    for label, part in result.groupby("label"):
        axis.hist(part["score"], bins=bins, alpha=0.6, label=f"{label} ({len(part)})")
    axis.axvline(threshold, color="black", linestyle="--", label="calibrated threshold")
    axis.set(xlabel="raw score", ylabel="images")
    axis.legend()
    _save(figure, out / "histogram.png")


def _history(out: Path, history: list[dict[str, Any]]) -> None:
    steps = [record for record in history if "loss" in record]
    if not steps:
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
    left.plot([r["loss"] for r in steps])
    left.set(xlabel="epoch", ylabel="loss on fit normals")
    checked = [(e, r["synthetic_auroc"]) for e, r in enumerate(steps) if "synthetic_auroc" in r]  # not every epoch is
    right.plot([e for e, _ in checked], [score for _, score in checked], marker=".")
    right.set(xlabel="epoch", ylabel="image AUROC on synthetic anomalies")
    _save(figure, out / "history.png")


def gallery(
    out: Path,
    data: Path,
    table: pd.DataFrame,
    result: pd.DataFrame,
    maps: np.ndarray,
    masks: dict[int, np.ndarray],
    scale: Mapping[str, float],
    count: int,
    rules: Decoding = DEFAULT,
    split: str = "test",
    sizes: Sequence[Sequence[str]] = (),
) -> None:
    """gallery.png and index.html: four rows of images, each with its heat map below, in the one scale of all heat maps.

    *sizes* are rows below ``found.HEAD``, for the page.
    """
    out.mkdir()
    chosen = _chosen(result, count)
    cells = [(title, i) for title in ROWS for i in chosen[title]]
    filled = [title for title in ROWS if chosen[title]]
    if not filled:
        _page(out, result, cells, split, sizes)
        return
    size = (1.5 * count + 1, 3.3 * len(filled))
    figure, axes = plt.subplots(2 * len(filled), count, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.ravel():
        axis.axis("off")
    for title, i in cells:
        row, column = 2 * filled.index(title), chosen[title].index(i)
        image = decode(data / str(table.at[i, "image_id"]), rules=rules.whole)
        _cell(axes[row : row + 2, column], image, maps[i], masks.get(i), scale, rules.roi)
        axes[row][column].set_title(f"{title}\np = {result.at[i, 'p_value']:.3f}", fontsize=8)
    _legend(figure, axes, scale)
    _save(figure, out / "gallery.png")
    _page(out, result, cells, split, sizes)


def _cell(
    axes: Any,
    image: np.ndarray,
    heat: np.ndarray,
    mask: np.ndarray | None,
    scale: Mapping[str, float],
    roi: str | None,
) -> None:
    height, width = target(image).shape[:2]
    whole = np.asarray(Image.fromarray(heat.astype(np.float32)).resize((width, height), Image.Resampling.BILINEAR))
    axes[0].imshow(target(image))
    axes[1].imshow(painted(image, whole, scale, roi))
    if mask is not None and mask.any():
        axes[0].contour(mask[::-1], levels=[0.5], colors="cyan", linewidths=0.8, extent=(0, width, height, 0))


def _legend(figure: Any, axes: Any, scale: Mapping[str, float]) -> None:
    """The ramp of colours with the mark of what normals reach: what is beyond it no good picture showed."""
    low, high = ends(scale)
    most = low + LIMIT * (high - low)
    norm, colours = mpl.colors.Normalize(low, max(high, low + 1e-9)), mpl.colors.ListedColormap(ramp(256) / 255)
    bar = figure.colorbar(mpl.cm.ScalarMappable(norm, colours), ax=axes, shrink=0.4, label="raw anomaly map")
    bar.set_ticks([low, most, high], labels=["99 % of\ngood spots", "most of\na good one", "twice\nas far"], fontsize=8)
    bar.ax.axhline(most, color="black", linewidth=2)


def _chosen(result: pd.DataFrame, count: int) -> dict[str, list[int]]:
    bad = result[result["label"] == "anomalous"].sort_values("score")
    good = result[result["label"] == "normal"].sort_values("score")
    middle = len(good) // 2
    return {
        "most anomalous": list(bad.index[::-1][:count]),
        "missed": list(bad[bad["decision"] == "normal"].index[:count]),
        "false alarms": list(good[good["decision"] == "anomalous"].index[::-1][:count]),
        "typical normals": list(good.index[middle : middle + count]),
    }


def _page(
    out: Path, result: pd.DataFrame, cells: list[tuple[str, int]], split: str, sizes: Sequence[Sequence[str]]
) -> None:
    lines = tuple(
        (
            title,
            str(result.at[i, "image_id"]),
            f"{result.at[i, 'score']:.4g}",
            f"{result.at[i, 'p_value']:.4f}",
            str(result.at[i, "decision"]),
        )
        for title, i in cells
    )
    shown = (
        Figures((gallery_figure(out / "gallery.png", "[in full size](gallery.png)"),)) if cells else Text("no images")
    )
    told = (Table(("row", "image", "raw score", "p-value", "decision"), lines),) if cells else ()
    parts = [Section("Pictures", (shown, *told))]
    if sizes:  # no defect is marked without
        parts.append(Section("Found by size of the defect", (Table(HEAD, tuple(map(tuple, sizes))),)))
    write(Page(f"Heat maps of the {split} split", (), tuple(parts)), out / "index.html")
