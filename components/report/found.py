"""What a model finds, as rows of tables: synthetic anomalies by kind and size, good pictures as they may come tomorrow,
and real defects by size where they are marked."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from components.core.records import NORMAL, NUISANCE, SIZE_NAMES, SIZES
from components.decision.calibration import Calibration
from components.report.blocks import Cell
from components.report.numbers import found

HEAD = ("extent, pixels", "pictures called anomalous", "95 %", "regions shown by the map", "95 %", "tiny regions")
KINDS = {  # what a picture of each graded kind shows
    "graded_small": "small: a spot, chip or scratch of 8 to 45 pixels",
    "graded_faint": "faint: a cloud without an edge",
    "graded_wide": "wide: areas of another finish",
    "graded_structure": "structure: a part bent or replaced",
}
NUISANCES = {
    "gain": "a little brighter or darker",
    "blur": "slightly out of focus",
    "noise": "a noisier sensor",
    "moved": "moved by a few pixels",
    "turned": "turned by a degree",
}
Row = tuple[Cell, ...]


def anomalies(checked: pd.DataFrame) -> pd.DataFrame:
    """Of records.CHECK_COLUMNS the synthetic anomalies."""
    return checked[(checked["kind"] != NORMAL) & ~checked["kind"].str.startswith(NUISANCE)]


def by_kind(checked: pd.DataFrame, known: Calibration) -> list[Row]:
    """Kind, share found, 95 %: of the synthetic anomalies at the operating point."""
    made = anomalies(checked)
    return [(KINDS.get(str(kind), str(kind)), *_called(part, known)) for kind, part in made.groupby("kind")]


def by_size(checked: pd.DataFrame, known: Calibration) -> list[Row]:
    """The same by extent, smallest first."""
    made = anomalies(checked)
    classes = pd.cut(made["extent"], SIZES, right=False, labels=list(SIZE_NAMES))
    parts = made.groupby(classes, observed=True)
    return [(f"{spoken(str(size))} pixels", *_called(part, known)) for size, part in parts]


def nuisances(checked: pd.DataFrame, known: Calibration) -> list[Row]:
    """What was done to good pictures, the share called anomalous, 95 %."""
    parts = checked[checked["kind"].str.startswith(NUISANCE)].groupby("kind")
    return [(NUISANCES.get(name, name), *_called(part, known)) for name, part in _named(parts)]


def hits(part: pd.DataFrame, known: Calibration) -> int:
    """How many of these rows are called anomalous."""
    _, decisions, _ = known.decide(part["score"].to_numpy(), [None] * len(part))
    return decisions.count("anomalous")


def lines(sizes: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Rows below HEAD of ``sizes`` in metrics.json, smallest defects first; none where no defect is marked."""
    classes = sizes.get("classes", {})
    return [
        (
            spoken(name),
            *_told(classes[name]["pictures"]),
            *_told(classes[name]["regions"]),
            str(classes[name]["regions"]["tiny"]),
        )
        for name in SIZE_NAMES
        if name in classes
    ]


def spoken(name: str) -> str:
    """A class of extents in words."""
    low, _, high = name.partition(" to ")
    return f"{low} or more" if name == SIZE_NAMES[-1] else f"under {high}" if low == "0" else name


def _named(parts: Any) -> Iterator[tuple[str, pd.DataFrame]]:
    return ((str(kind).removeprefix(NUISANCE), part) for kind, part in parts)


def _called(part: pd.DataFrame, known: Calibration) -> tuple[Cell, Cell]:
    return found(hits(part, known), len(part))


def _told(share: Mapping[str, Any]) -> tuple[str, str]:
    if "recall" not in share:
        return "-", "-"
    low, high = share["interval"]
    return f"{share['found']} of {share['n']} ({share['recall']:.0%})", f"{low:.0%} to {high:.0%}"
