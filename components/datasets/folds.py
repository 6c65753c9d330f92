"""The good training pictures of a split in folds, where there are too few to hold some out for good."""

from pathlib import Path

import pandas as pd

from components.core.artefacts import recorded, write_json
from components.core.errors import DataError
from components.core.records import SPLIT_COLUMNS
from components.datasets.loading import hand_on, read_decoding, read_split
from components.datasets.splits import share_of
from components.datasets.videos import clip_of

ALL, HELD = "all", "held"


def write_folds(split: Path, out: Path, count: int, together: str = "picture") -> Path:
    """Write split tables below *out*: 0 to *count* - 1, each with one fold as calibrate side; ``all``, where every good
    training picture is on the fit side; ``held``, where each is on the calibrate side.

    Who belongs to which fold follows from the names. Copies of one exposure have left the training side already
    (``datasets.copies``), so none is in two folds; test pictures and labelled anomalies stay where they are. *together*
    ``group`` keeps the pictures of a group in one fold, where there are as many groups; frames of a clip always are.
    """
    table = read_split(split)
    good = table["split"].isin(["fit", "calibrate"]) & (table["label"] == "normal")
    units = units_of(table[good], split, together)
    fold = _folds(table[good], count) if units is None else _of_units(units, count)
    with recorded(out, "folds", {"count": count, "together": together}, {"split": split / "split.parquet"}) as scratch:
        for number in range(count):
            sides = pd.Series("fit", fold.index).where(fold != number, "calibrate")
            _write(table, sides, split, scratch / str(number) / "split")
        for name, side in ((ALL, "fit"), (HELD, "calibrate")):
            _write(table, pd.Series(side, fold.index), split, scratch / name / "split")
        write_json(scratch / "folds.json", {"count": count, "normals": [int((fold == k).sum()) for k in range(count)]})
    return out


def _folds(good: pd.DataFrame, count: int) -> pd.Series:
    """The fold of each row: within a group in turn, in the order of a hash of the names, so folds are alike."""
    ranked = sorted(good.index, key=lambda row: (str(good.at[row, "group"]), share_of(str(good.at[row, "image_id"]))))
    return pd.Series({row: place % count for place, row in enumerate(ranked)}, dtype=int)


def units_of(good: pd.DataFrame, split: Path, together: str) -> pd.Series | None:
    """What of each row stays on one side with it: its clip, where rows are frames, or its group; None: nothing."""
    if read_decoding(split).stride:
        return good["image_id"].map(clip_of).rename("clips")
    return good["group"].rename("groups") if together == "group" else None


def _of_units(units: pd.Series, count: int) -> pd.Series:
    """The fold of each row by its unit, in the order of a hash of the units' names. Raises DataError."""
    names = sorted(set(units), key=share_of)
    if len(names) < count:
        more = "add groups, or set split.together: picture" if units.name == "groups" else "add clips"
        raise DataError(f"{len(names)} {units.name} cannot be in {count} folds; {more}")
    place = {name: number % count for number, name in enumerate(names)}
    return units.map(place).astype(int)


def _write(table: pd.DataFrame, sides: pd.Series, split: Path, out: Path) -> None:
    out.mkdir(parents=True)
    changed = table.copy()
    changed.loc[sides.index, "split"] = sides
    changed[list(SPLIT_COLUMNS)].to_parquet(out / "split.parquet", index=False)
    hand_on(split, out)
