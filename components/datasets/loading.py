"""Reading the split table."""

from pathlib import Path

import pandas as pd


def read_split(path: Path) -> pd.DataFrame:
    """The split table (records.SPLIT_COLUMNS) of a split artefact."""
    return pd.read_parquet(path / "split.parquet")


def rows(split: Path, side: str, label: str | None = None) -> pd.DataFrame:
    """The rows of one side, of one label if given, in the table's order."""
    table = read_split(split)
    chosen = table[table["split"] == side]
    return (chosen if label is None else chosen[chosen["label"] == label]).reset_index(drop=True)
