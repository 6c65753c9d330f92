"""Runs side by side: figures, differences on the same pictures with intervals, and the pictures they differ on most."""

import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
from PIL import Image

from components.core.artefacts import read_json
from components.core.errors import DataError
from components.core.places import check_file
from components.decision.bundle import Bundle
from components.decision.paired import PICTURES, Difference, Sides, difference, share_better, worth
from components.pictures.heat import overlay
from components.pictures.kept import decode
from components.report.blocks import Block, Figure, Figures, Page, Section, Table, Text
from components.report.measured import scale_figure
from components.report.numbers import between, percent, raw
from components.report.page import write
from components.report.run import Run

SHOWN = 8  # pictures on which the runs differ most
SIDE = 200  # pixels of a picture's longer side on the page
KNOWN = ("normal", "anomalous")
SEVERAL = "give two or more folders that `loupe fit` or `loupe ensemble` wrote"


@dataclass(frozen=True)
class Compared(Run):
    """A run by the name that tells it from the others."""

    name: str = ""

    @property
    def detector(self) -> str:
        record = read_json(self.folder / "run.json")
        sizes = record.get("sizes", {}).get("detectors") or [m["detector"] for m in record.get("members", [])]
        return " + ".join(sizes) or str(record["request"]["detector"])

    @property
    def tested(self) -> pd.DataFrame | None:
        """Scores of the test split by picture, good and anomalous ones."""
        path = self.folder / "evaluation" / "scores.parquet"
        if self.metrics() is None or not path.exists():
            return None
        table = pd.read_parquet(path, columns=["image_id", "label", "score", "p_value", "decision"])
        return table[table["label"].isin(KNOWN)].sort_values("image_id", ignore_index=True)


def compare(folders: Sequence[Path], out: Path, data: Path | None = None) -> Path:
    """Write the page *out* of runs; with *data*, the folder of their data set, with pictures. Raises DataError."""
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise DataError(f"a comparison is of different runs; {SEVERAL}")
    for folder in folders:
        if not all((folder / name).exists() for name in ("run.json", "bundle/calibration.json")):
            raise DataError(f"{folder}: holds no finished run; {SEVERAL}")
    if data and not data.is_dir():
        raise DataError(f"{data}: is not a folder; give the folder of the runs' data set with --data")
    check_file(out)
    if out.suffix.lower() not in (".html", ".htm"):
        raise DataError(f"{out}: the page is HTML; give a name that ends in .html")
    if data:
        _require_pictures(folders, data)
    return write(page(named(folders), data, out.parent), out)


def named(folders: Sequence[Path]) -> list[Compared]:
    """Runs by the names of their folders, or by their paths where two have one name."""
    return [Compared(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]


def _require_pictures(folders: Sequence[Path], data: Path) -> None:
    """Raises DataError when no picture of the runs is below *data*."""
    splits = [folder / "split.parquet" for folder in folders if (folder / "split.parquet").exists()]
    known = [image for split in splits for image in pd.read_parquet(split, columns=["image_id"])["image_id"]]
    if known and not any((data / image).exists() for image in known):
        raise DataError(f"{data}: holds no picture of these runs; give the folder of their data set with --data")


def _names(folders: Sequence[Path]) -> list[str]:
    short = [folder.resolve().name for folder in folders]
    return short if len(set(short)) == len(short) else [str(folder) for folder in folders]


def page(runs: Sequence[Compared], data: Path | None, folder: Path = Path()) -> Page:
    """Figures of each, each against the first, pictures; links are from *folder*, and move with it and the runs."""
    parts = [Section("Figures", (Table(("run", "detector", *_HEAD), tuple(map(_row, runs))), Text(_TOLD, "note")))]
    against = [row for other in runs[1:] for row in [_against(runs[0], other)] if row]
    if against:
        head = ("run", f"image AUROC less that of {runs[0].name}", "graded anomalies: better than it on")
        told = "Differences are of the same pictures, drawn again. One whose interval holds 0 may be luck."
        parts.append(Section(f"Beside {runs[0].name}", (Table(head, tuple(against)), Text(told, "note"))))
    parts += list(_pictures(runs, data))
    lead = tuple(f"**{run.name}**: {run.detector}." for run in runs)
    links = tuple((f"report of {run.name}", _link(run.folder / "report.html", folder)) for run in runs)
    return Page("Runs compared", lead, tuple(parts), "Made of the runs' own files; nothing is trained.", links)


def _link(page: Path, folder: Path) -> str:
    return quote(Path(os.path.relpath(page.resolve(), folder.resolve())).as_posix())


_HEAD = ("threshold", "true false-alarm rate, 95 %", "graded AUROC", "test AUROC", "false alarms", "misses")
_TOLD = (
    "Graded AUROC: synthetic anomalies that no detector learned from against good pictures, as they are and under "
    "other light, blur, noise, shift and turn. The last three columns are of labelled test pictures."
)


def figures(run: Compared) -> dict[str, str | float | None]:
    """What the page's first table says of a run, as numbers; None for what was not measured."""
    overall = (run.metrics() or {}).get("overall", {})
    low, high = run.known.interval
    return {
        "run": run.name,
        "detector": run.detector,
        "threshold": run.known.threshold,
        "false_alarms_low": low,
        "false_alarms_high": high,
        "graded_auroc": None if run.checked is None else worth(run.checked),
        "test_auroc": overall.get("image", {}).get("auroc"),
        "test_false_alarms": overall.get("false_alarm_rate", {}).get("rate"),
        "test_misses": overall.get("miss_rate", {}).get("rate"),
    }


def _row(run: Compared) -> tuple[str, ...]:
    known: dict[str, Any] = figures(run)
    areas = [known[key] for key in ("graded_auroc", "test_auroc")]
    rates = [known[key] for key in ("test_false_alarms", "test_misses")]
    return (
        run.name,
        run.detector,
        raw(run.known.threshold),
        between(run.known.interval),
        *("-" if area is None else f"{area:.3f}" for area in areas),
        *("-" if rate is None else percent(rate) for rate in rates),
    )


def _against(first: Compared, other: Compared) -> tuple[str, str, str] | None:
    found, tables = gain(other, first), [run.checked for run in (other, first)]
    mine, theirs = tables
    if found is None and (mine is None or theirs is None):
        return None
    said = "not of the same test pictures"
    if found:
        said = f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
    if mine is None or theirs is None or not mine[PICTURES].equals(theirs[PICTURES]):
        return other.name, said, "not checked with the same pictures"
    return other.name, said, f"{percent(share_better(mine, theirs, seed=0))} of resamplings"


def gain(one: Compared, other: Compared) -> Difference | None:
    """Image AUROC of *one* less that of *other*; None where both kinds of the same pictures were not measured."""
    tables = (one.tested, other.tested)
    if any(table is None or set(table["label"]) != set(KNOWN) for table in tables):
        return None
    mine, theirs = (table for table in tables if table is not None)
    if not mine[["image_id", "label"]].equals(theirs[["image_id", "label"]]):
        return None
    return difference(_sides(mine), _sides(theirs))


def _sides(table: pd.DataFrame) -> Sides:
    good, anomalous = (table[table["label"] == label]["score"].to_numpy(float) for label in KNOWN)
    return Sides(good, anomalous)


def _pictures(runs: Sequence[Compared], data: Path | None) -> Iterator[Section]:
    """The test pictures whose p-values lie farthest apart, each with the heat of every run."""
    tables = [run.tested for run in runs]
    if any(table is None for table in tables):
        yield Section("Pictures", (Text("`loupe evaluate` of each run scores test pictures; then they stand here."),))
        return
    joined = _joined([table for table in tables if table is not None])
    if not data:
        names = tuple((str(name), *(f"{p:.3f}" for p in row)) for name, row in joined.head(SHOWN).iterrows())
        table = Table(("picture", *(f"p, {run.name}" for run in runs)), names)
        yield Section("Pictures on which they differ most", (table, Text("With --data they are drawn.", "note")))
        return
    blocks: list[Block] = [Text("p: the share of good pictures that look as odd to this run.", "note"), scale_figure()]
    opened = [Bundle.open(run.folder / "bundle") for run in runs]
    for number, (name, row) in enumerate(joined.head(SHOWN).iterrows()):
        cells = zip(runs, opened, row, strict=True)
        drawn = [_cell(number, data / str(name), run, bundle, float(p)) for run, bundle, p in cells]
        blocks += [Text(f"**{name}**"), Figures(tuple(drawn), small=True)]
    yield Section("Pictures on which they differ most", tuple(blocks))


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """p-values of each run by picture, the one first where they lie farthest apart."""
    parts = [table.set_index("image_id")["p_value"].rename(number) for number, table in enumerate(tables)]
    found = pd.concat(parts, axis=1, join="inner")
    return found.loc[(found.max(axis=1) - found.min(axis=1)).sort_values(ascending=False, kind="stable").index]


def _cell(number: int, path: Path, run: Compared, bundle: Bundle, p: float) -> Figure:
    pixels = decode(path, rules=bundle.decoding)
    answer = bundle.answer(pixels)
    drawn = Image.open(io.BytesIO(overlay(pixels, answer.map, bundle.calibration.scale, bundle.decoding.roi)))
    drawn.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    drawn.convert("RGB").save(stream, "JPEG", quality=85)
    caption = f"{run.name}: **{answer.decided.decision}**, p {p:.3f}"
    return Figure(
        f"{number}-{run.name}", f"{path.name} with the heat of {run.name}", stream.getvalue(), "jpeg", caption
    )
