"""Reading the split table."""

from pathlib import Path

import pandas as pd


def read_split(path: Path) -> pd.DataFrame:
    """The split table (records.SPLIT_COLUMNS) of a split artefact."""
    return pd.read_parquet(path / "split.parquet")
