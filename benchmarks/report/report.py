"""The benchmark report: one page from the stored results, as HTML, Markdown with PNG, and CSV.

Reads benchmarks/results/ and trains nothing. Markdown and figures go to docs/report/, the HTML page and
leaderboard.csv to artefacts/report/.
"""

import csv
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common.runner import options
from benchmarks.report import gallery, markdown
from benchmarks.report.gather import Results
from benchmarks.report.sections import page
from benchmarks.report.taxonomy import place
from components.report import figures
from components.report.page import write

DOCS, HTML = Path("docs/report"), Path("artefacts/report")


def main(arguments: list[str]) -> None:
    parser = options("report", __doc__)
    parser.add_argument("--docs", type=Path, default=DOCS, help="where README.md and its figures go")
    parser.add_argument("--html", type=Path, default=HTML, help="where index.html and leaderboard.csv go")
    asked = parser.parse_args(arguments)
    for path in written(Results.read(), asked.docs, asked.html):
        sys.stdout.write(f"{path}\n")


def written(found: Results, docs: Path, html: Path) -> Iterator[Path]:
    """Write every form of the report; the paths of the files to open."""
    pictures = gallery.blocks()
    yield markdown.write(page(found, "png", figures.png, pictures), docs)
    html.mkdir(parents=True, exist_ok=True)
    base = os.path.relpath(DOCS, html)  # links of the page are those of the Markdown in the checkout
    yield write(page(found, "svg+xml", figures.svg, pictures), html / "index.html", base)
    yield table(found, html / "leaderboard.csv")


def table(found: Results, out: Path) -> Path:
    """One line per view and method, figures in full."""
    lines = [line(found, view, name) for view in found.auroc for name in found.ranked(view)]
    with out.open("w", newline="") as stream:
        rows = csv.DictWriter(stream, list(lines[0]) if lines else [])
        rows.writeheader()
        rows.writerows(lines)
    return out


def line(found: Results, view: str, name: str) -> dict[str, object]:
    """Every figure of one training; empty where one is missing."""
    entry = found.entry(view, name)
    overall, graph, own = entry["overall"], entry["onnx"], place(name)
    image, pixel = overall["image"], overall["pixel"]
    low, high = found.interval(view, name)
    return {
        "view": view,
        "method": name,
        "marks": found.marks(view, name),
        "image_auroc": image["auroc"],
        "image_auroc_low": low,
        "image_auroc_high": high,
        "image_ap": image["ap"],
        **{f"pixel_{key}": pixel.get(key, "") for key in ("auroc", "ap", "aupro")},
        "false_alarms": overall["false_alarm_rate"].get("rate", ""),
        "misses": overall["miss_rate"].get("rate", ""),
        "train_cpu_seconds": entry["seconds"].get("train CPU", ""),
        "peak_mib": entry["peak_memory_mb"],
        "onnx_ms": graph["ms"],
        "onnx_ratio": graph["ratio"],
        "learned_millions": entry["parameters"]["learned"],
        "state_mb": entry["state_mb"],
        "cui": own.cui,
        "tao": own.tao,
    }
