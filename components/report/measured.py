"""What an evaluation measured, as a section of the page: figures with intervals, curves, sizes, the gallery."""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from components.report import figures
from components.report.blocks import Block, Figure, Figures, Section, Table, Text
from components.report.found import HEAD, lines
from components.report.numbers import between, percent

WIDTH = 1400  # pixels of the gallery on the page; the whole one lies beside it
NAMES = {"auroc": "AUROC", "ap": "AP", "f1_max": "F1 at its best threshold"}
PIXELS = {"auroc": "pixel AUROC", "ap": "pixel AP", "f1_max": "pixel F1 at its best threshold", "aupro": "AUPRO"}


def section(title: str, metrics: Mapping[str, Any], folder: Path, threshold: float) -> Section:
    """Of the evaluation in *folder*."""
    overall = metrics["overall"]
    n = overall["n"]
    blocks: list[Block] = [
        Text(f"{n['normal']} good and {n['anomalous']} defective pictures. Their labels measure and choose nothing."),
        Table(("figure", "value", "95 %"), tuple(_rows(overall))),
    ]
    if len(metrics["groups"]) > 1:
        blocks.append(Table(("group", "good", "defective", "AUROC", "false alarms", "misses"), _groups(metrics)))
    blocks.append(Figures(tuple(_curves(folder, threshold))))
    if rows := lines(overall.get("sizes", {})):
        blocks += [Text("**Found by size of the defect**"), Table(HEAD, tuple(rows))]
    blocks.extend(_gallery(folder))
    return Section(title, tuple(blocks))


def _rows(overall: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    for key, name in (("false_alarm_rate", "good pictures called anomalous"), ("miss_rate", "defects missed")):
        if "rate" in overall[key]:
            yield name, percent(overall[key]["rate"]), between(overall[key]["interval"])
    image, pixel = overall["image"], overall["pixel"]
    for key, name in NAMES.items():
        if key in image:
            yield name, f"{image[key]:.3f}", " to ".join(f"{v:.3f}" for v in image["interval"].get(key, []))
    for key, name in PIXELS.items():
        if key in pixel:
            yield name, f"{pixel[key]:.3f}", ""
    for name, part in (("figures of pictures", image), ("figures of pixels", pixel)):
        if "not_available" in part:
            yield name, part["not_available"], ""


def _groups(metrics: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
    return tuple(
        (
            name,
            str(own["n"]["normal"]),
            str(own["n"]["anomalous"]),
            f"{own['image']['auroc']:.3f}" if "auroc" in own["image"] else "-",
            *(percent(own[key]["rate"]) if "rate" in own[key] else "-" for key in ("false_alarm_rate", "miss_rate")),
        )
        for name, own in metrics["groups"].items()
    )


def _curves(folder: Path, threshold: float) -> Iterator[Figure]:
    scores = pd.read_parquet(folder / "scores.parquet", columns=["label", "score"])
    parts = {str(label): part["score"].to_numpy(float) for label, part in scores.groupby("label")}
    shown: dict[str, Any] = {name: parts[name] for name in ("normal", "anomalous", "uncertain") if name in parts}
    if not shown:
        return
    drawn = figures.histogram(shown, threshold)
    yield Figure("tested", "histogram of raw scores by label, with the threshold", drawn, "svg+xml")
    if {"normal", "anomalous"} <= shown.keys():
        drawn = figures.curve(shown["normal"], shown["anomalous"], threshold, "defects")
        yield Figure("roc", "defects found over false alarms, with the operating point", drawn, "svg+xml")


def _gallery(folder: Path) -> Iterator[Block]:
    path = folder / "gallery" / "gallery.png"
    if path.exists():
        told = f"All in one scale. [The table of these pictures]({folder.name}/gallery/index.html)"
        yield Figures((gallery_figure(path, told),))


def scale_figure() -> Figures:
    """What the colours of heat maps mean; it stands once beside those of a page."""
    alt = (
        "nothing is drawn up to 99 % of good spots; the mark is the most a good picture showed; yellow is twice as far"
    )
    return Figures((Figure("scale", alt, figures.heat_scale(), "svg+xml"),))


def gallery_figure(path: Path, told: str = "") -> Figure:
    """The heat maps that evaluation drew, small enough to be part of a page."""
    with Image.open(path) as image:
        small = image.convert("RGB")
    small.thumbnail((WIDTH, WIDTH * 10))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=82)
    alt = "most anomalous, missed, false alarms and typical normals with their heat maps"
    return Figure("gallery", alt, stream.getvalue(), "jpeg", told, wide=True)
