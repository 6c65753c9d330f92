"""A new data version: what the champion learned from, and the candidates, as one pinned data set."""

import csv
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from components.core.artefacts import atomic_dir
from components.core.filenames import inside
from components.datasets.adapters import COLLECTED_COLUMNS, COLLECTED_TABLE, listed
from components.datasets.manifest import mask_rule
from components.datasets.rows import Row
from components.datasets.settings import DataSettings
from components.datasets.versions import pin, restore, version
from components.pictures.decoding import Decoding
from components.pictures.masks import mask_paths

__all__ = ["base_rows", "live_name", "restore", "write_version"]

ROLES = {"train": ("normal", "train"), "holdout": ("uncertain", "test"), "defect": ("anomalous", "test")}


def live_name(model: str) -> str:
    """The data set that a model's retrainings write versions of."""
    return f"{model}-live"


def base_rows(data: Path, settings: DataSettings, groups: tuple[str, ...] | None) -> list[Row]:
    """The rows of the champion's data set and groups, each with how its masks are read."""
    rules = Decoding(settings.white, settings.max_pixels)
    rows = listed(settings.adapter, data, settings.naming).rows
    chosen = [row for row in rows if groups is None or row.group in groups]
    return [replace(row, mask_rule=mask_rule(data, row, settings, rules)) for row in chosen]


def write_version(base: Path, rows: list[Row], candidates: Path, out: Path) -> Path:
    """Write *rows* of the folder *base* and the candidates to the folder *out* and pin it; returns its pin file."""
    chosen = pd.read_parquet(candidates / "candidates.parquet")
    with atomic_dir(out) as scratch:
        new = [_candidate(row, candidates, scratch) for row in chosen.to_dict("records") if row["part"] in ROLES]
        _copy_rows(base, rows, scratch)
        _write_table([*rows, *new], scratch / COLLECTED_TABLE)
    return pin(out)


def write_base(base: Path, rows: list[Row], out: Path) -> Path:
    """Write *rows* of the folder *base* alone to the folder *out* and pin it: where retrainings of a run begin."""
    with atomic_dir(out) as scratch:
        _copy_rows(base, rows, scratch)
        _write_table(rows, scratch / COLLECTED_TABLE)
    return pin(out)


def keep_pin(pinned: Path, folder: Path) -> Path:
    """A copy of a pin file in *folder* by the name of its content: the next version overwrites the pin itself."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(pinned, folder / f"{version(pinned).removesuffix('.dir')}.dvc"))


def _copy_rows(base: Path, rows: list[Row], out: Path) -> None:
    for row in rows:
        for name in (row.image_id, *mask_paths(row.mask)):
            _copy(base / name, inside(out, name))


def _candidate(row: Mapping[Any, Any], candidates: Path, out: Path) -> Row:
    label, role = ROLES[row["part"]]
    name = f"production/{row['source']}/{Path(row['file']).name}"
    _copy(candidates / row["file"], inside(out, name))
    return Row(name, row["source"], label, "reviewed" if label == "anomalous" else "", role)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _write_table(rows: list[Row], path: Path) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLLECTED_COLUMNS)
        writer.writerows([getattr(row, name) or "" for name in COLLECTED_COLUMNS] for row in rows)
