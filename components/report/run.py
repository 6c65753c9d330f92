"""The page of one run: RUN/report.html, from the run's files alone, so that it can be written again at any time.

Whatever is not there (an evaluation, evidence of an older version, the stages' artefacts) has no section or says so.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.core.artefacts import read_json, seconds_of
from components.core.records import CHECK_TABLE, NORMAL
from components.decision.calibration import Calibration
from components.report import card, figures, found, measured
from components.report.blocks import Block, Fact, Facts, Figure, Figures, Page, Section, Table, Text
from components.report.cells import KEPT, Made, collect
from components.report.checked import data_section
from components.report.numbers import percent, raw
from components.report.page import write
from components.report.told import PAGE, verdict

LABELLED = {"evaluation": "Test pictures", "labelled": "Other labelled pictures"}  # folder of a run -> heading
LEFT = "left the picture, right what the model sees in it"
HOW = (
    f"Each pair: {LEFT}. Nothing is drawn where a good picture could look as this one does; yellow is furthest from "
    "normal. Blue lines surround what was pasted in. p: the share of good pictures that look as odd."
)
FOLDED = (
    "Calibrated by folds: scores and p are of the fold that had held the picture out. The heat is of the model that "
    "ships. It has learned all good pictures, these too, and sees less in them."
)
ODD = "**Good pictures that look least normal.** A defect among them would raise the threshold: look at them."
MADE = "**Synthetic anomalies**, of each kind the middle one and the one least seen."


@dataclass(frozen=True)
class Run:
    """A folder with ``model`` and ``bundle``, and what may lie beside them."""

    folder: Path

    @cached_property
    def known(self) -> Calibration:
        """The operating point that the bundle ships; calibration.json at the top of a run is the same file."""
        return Calibration.read(self.folder / "bundle" / "calibration.json")

    @cached_property
    def scores(self) -> np.ndarray:
        """Raw scores of the calibrate normals."""
        return np.array(self.known.table.scores, np.float64)

    @cached_property
    def checked(self) -> pd.DataFrame | None:
        path = self.folder / "model" / CHECK_TABLE
        return pd.read_parquet(path) if path.exists() else None

    def json(self, name: str) -> Any:
        """What a JSON file of the run holds, None without it."""
        path = self.folder / name
        return read_json(path) if path.exists() else None

    def metrics(self, folder: str = "evaluation") -> dict[str, Any] | None:
        """metrics.json of an evaluation at today's operating point."""
        found: dict[str, Any] | None = self.json(f"{folder}/metrics.json")
        point = (found or {}).get("calibration", {}).get("threshold")
        return found if point == self.known.threshold else None


def report(run: Path, made: Made) -> Path:
    """Collect what the page shows of pictures and data, and write it. Returns RUN/report.html."""
    collect(run, made)
    return rewrite(run)


def rewrite(run: Path) -> Path:
    """The page once more, from what lies in *run*: after an evaluation, or at another operating point."""
    return write(page(Run(run)), run / PAGE)


def page(run: Run) -> Page:
    title, _ = card.parts(run.folder)
    parts = [
        operating(run),
        heat(run),
        synthetic(run),
        *labelled(run),
        *data_section(run.json(f"{KEPT}/data.json"), run.folder),
    ]
    parts += [*training(run), card.section(run.folder)]
    return Page(
        title,
        verdict(run.known, run.checked, run.metrics()),
        tuple(part for part in parts if part),
        "Report of one training run. All figures are from the files listed at the end.",
        links(run.folder),
    )


def operating(run: Run) -> Section:
    """Threshold, promise, and where scores lie."""
    known = run.known
    kind = f", nominal: {known.nominal}" if known.nominal else ""
    facts = (
        Fact("threshold", raw(known.threshold), "raw score; higher is more anomalous"),
        Fact("false alarms asked for", percent(known.alpha), "of good pictures"),
        Fact("true rate, at least", percent(known.interval[0]), f"{percent(known.confidence)} interval{kind}"),
        Fact("true rate, at most", percent(known.interval[1]), f"from {known.n:,} good pictures"),
    )
    blocks: list[Block] = [Facts(facts)]
    if known.own:
        rows = tuple((name, raw(group.threshold or 0), str(group.n)) for name, group in known.own.items())
        blocks.append(Table(("group", "threshold", "good pictures"), rows))
    blocks.append(Figures(tuple(_curves(run))))
    if known.n < 100:
        blocks.append(Text(f"{known.n} good pictures are few: more of them narrow the interval.", "note"))
    return Section("Where it decides", tuple(blocks), "Threshold")


def _curves(run: Run) -> Iterator[Figure]:
    shown = {"calibrate normals": run.scores}
    made = None if run.checked is None else found.anomalies(run.checked)["score"].to_numpy()
    if made is not None and len(made):
        shown["synthetic anomalies"] = made
    alt = "histogram of raw scores with the threshold"
    told = "Each kind of picture adds up to 1. What lies right of the line is called anomalous."
    yield Figure("histogram", alt, figures.histogram(shown, run.known.threshold), "svg+xml", told)
    if made is not None and len(made):
        normal = run.checked[run.checked["kind"] == NORMAL]["score"].to_numpy()  # type: ignore[index]
        drawn = figures.curve(normal, made, run.known.threshold, "synthetic anomalies")
        told = "Every other threshold lies on the line. Synthetic anomalies tell of the model, not of your defects."
        yield Figure("curve", "found over false alarms, with the operating point", drawn, "svg+xml", told)


def heat(run: Run) -> Section | None:
    """The pictures that ``cells`` kept."""
    cells = run.json(f"{KEPT}/cells.json")
    if not cells:
        return None
    blocks: list[Block] = [Text(HOW, "note"), measured.scale_figure()]
    if run.known.folds:
        blocks.append(Text(FOLDED, "note"))
    good = tuple(_cell(run, cell) for cell in cells if cell["what"] == "good")
    made = tuple(_cell(run, cell) for cell in cells if cell["what"] != "good")
    for about, pictures in ((ODD, good), (MADE, made)):
        if pictures:
            blocks += [Text(about), Figures(pictures, small=True)]
    return Section("Heat maps", tuple(blocks))


def _cell(run: Run, cell: dict[str, Any]) -> Figure:
    score = cell.get("checked", cell["score"]) if run.known.folds else cell["score"]  # older runs kept the latter
    p, called, _ = run.known.decide(np.array([score]), [None])
    what = found.KINDS.get(cell["what"], cell["what"]).partition(":")[0]
    caption = f"**{called[0]}**, {what}; score {score:.4g}, p {p[0]:.3f}"
    path = run.folder / KEPT / cell["file"]
    return Figure(path.stem, f"{cell['name']}: {LEFT}", path.read_bytes(), "jpeg", caption)


def synthetic(run: Run) -> Section | None:
    """Recall by kind and by size, and alarms at good pictures as they may come."""
    checked, known = run.checked, run.known
    if checked is None or found.anomalies(checked).empty:
        return None
    about = (
        "Anomalies pasted on the good pictures that calibrate. Their strength is set so that a simple probe finds most "
        "but not all: they compare models and show blind spots. They do not tell how many of your defects it will find."
    )
    blocks: list[Block] = [
        Text(about, "note"),
        Table(("kind", "called anomalous", "95 %"), tuple(found.by_kind(checked, known))),
        Table(("size: root of its area", "called anomalous", "95 %"), tuple(found.by_size(checked, known))),
    ]
    if rows := found.nuisances(checked, known):
        told = "**Good pictures as they may come tomorrow.** They should alarm no more often than the promise says."
        blocks += [Text(told), Table(("good pictures", "called anomalous", "95 %"), tuple(rows))]
    return Section("Synthetic anomalies found, by kind and size", tuple(blocks), "Synthetic anomalies")


def labelled(run: Run) -> Iterator[Section]:
    """What was measured on labelled pictures, or that nothing was."""
    for folder, title in LABELLED.items():
        if metrics := run.metrics(folder):
            yield measured.section(title, metrics, run.folder / folder, run.known.threshold)
        elif (run.folder / folder / "metrics.json").exists():
            told = "Measured at another operating point or of another model: `loupe evaluate` measures again."
            yield Section(title, (Text(told),))
    if not any((run.folder / folder / "metrics.json").exists() for folder in LABELLED):
        told = "No labelled picture has been scored. `loupe evaluate` scores the test split or any labelled folder."
        yield Section("Test pictures", (Text(told),))


def training(run: Run) -> Iterator[Section]:
    """What it took to learn, and its course."""
    timing, history = run.json("model/timing.json") or {}, run.json("model/history.json") or []
    took = seconds_of(run.folder / "model")
    facts = [] if took is None else [Fact("training", f"{took:,.0f} s" if took >= 1 else "less than 1 s")]
    facts += [Fact("peak memory", f"{timing['peak_memory_mb']:,} MiB")] if "peak_memory_mb" in timing else []
    epochs = sum("loss" in step for step in history)
    facts += [Fact("epochs", str(epochs), "" if epochs else "closed form: nothing is learned in epochs")]
    blocks: list[Block] = [Facts(tuple(facts))]
    if drawn := figures.history(history):
        told = "Synthetic anomalies choose the epoch; labels never do."
        blocks.append(Figures((Figure("history", "loss and AUROC over epochs", drawn, "svg+xml", told),)))
    yield Section("Training", tuple(blocks))


def links(folder: Path) -> tuple[tuple[str, str], ...]:
    """The files of a run that are there, as links of the page."""
    known = {
        "bundle/MODEL_CARD.md": "model card",
        "bundle/manifest.json": "bundle: what a line's computer runs",
        "bundle/calibration.json": "calibration.json: operating point and scores of good pictures",
        "bundle/parity.json": "parity.json: graph and detector score alike",
        "model/check.json": "check.json: evidence on synthetic anomalies",
        "model/history.json": "history.json: course of the training",
        "run.json": "run.json: request, inputs and versions",
        "evaluation/metrics.json": "metrics of the test split",
        "evaluation/gallery/index.html": "gallery of the test split",
        "labelled/metrics.json": "metrics of the labelled folder",
        "labelled/gallery/index.html": "gallery of the labelled folder",
        f"{KEPT}/grid.png": "synthetic anomalies beside their pictures",
    }
    return tuple((label, name) for name, label in known.items() if (folder / name).exists())
