"""Reading the split table."""

import shutil
from pathlib import Path

import pandas as pd

from components.core.artefacts import read_json
from components.core.settings import build
from components.pictures.decoding import Decoding

LISTING = "listing.json"  # beside the manifest: what was taken from the folder, and the size of what masks mark
DECODING = "decoding.json"  # beside the tables of manifest, validation, split and run: how their pictures are read


def read_decoding(folder: Path) -> Decoding:
    """How pictures listed in an artefact are decoded; the default for one of an older version."""
    path = folder / DECODING
    return build(Decoding, read_json(path), str(path)) if path.exists() else Decoding()


def hand_on(source: Path, out: Path) -> None:
    """Copy the rules of decoding from one artefact to the next; an artefact of an older version has none."""
    if (source / DECODING).exists():
        shutil.copyfile(source / DECODING, out / DECODING)


def read_split(path: Path) -> pd.DataFrame:
    """The split table (records.SPLIT_COLUMNS) of a split artefact."""
    return pd.read_parquet(path / "split.parquet")


def rows(split: Path, side: str, label: str | None = None) -> pd.DataFrame:
    """The rows of one side, of one label if given, in the table's order."""
    table = read_split(split)
    chosen = table[table["split"] == side]
    return (chosen if label is None else chosen[chosen["label"] == label]).reset_index(drop=True)
