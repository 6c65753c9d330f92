"""Labelled pictures that a run has not seen: any folder with good and defective ones."""

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from components.core.errors import DataError
from components.core.progress import progress
from components.datasets.folders import note_lines, read_labelled
from components.datasets.loading import read_decoding, read_split
from components.datasets.manifest import read_rows
from components.datasets.rows import DEFAULT, Naming
from components.datasets.settings import DataSettings
from components.pictures.masks import Masks, MaskTurn

log = logging.getLogger("loupe")
SPLIT = "labelled"


def labelled_rows(
    run: Path, folder: Path, naming: Naming = DEFAULT, masks: Masks = "auto", mask_turn: MaskTurn = "auto"
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """All readable pictures of *folder* but those the run learned from, and what to say of them. Raises DataError."""
    if not folder.is_dir():
        raise DataError(f"{folder}: is not a folder; give one with good/ and a folder for each defect")
    found, rules = read_labelled(folder, naming), read_decoding(run)
    for level, line in note_lines(folder.name, found.notes):
        log.log(level, "%s", line)
    settings = replace(
        DataSettings("folder", folder.name, rules.max_pixels, rules.white), masks=masks, mask_turn=mask_turn
    )
    table = read_rows(folder, progress(found.rows, f"{folder.name}: reading images"), settings, rules, [])
    learned = read_split(run)
    learned = learned[learned["split"].isin(["fit", "calibrate"])]
    broken, own = table["problem"].notna(), table["sha256"].isin(set(learned["sha256"]))
    chosen = table[~broken & ~own].reset_index(drop=True).assign(split=SPLIT, note=None)
    left, bad = sorted(table[~broken & own]["image_id"]), [str(line) for line in table[broken]["problem"]]
    counts = Counter(chosen["label"])
    _tell(folder.name, counts, left, bad)
    if chosen.empty:
        why = f"{len(left)} were learned from, {len(bad)} cannot be read"
        raise DataError(f"{folder}: no picture is left to evaluate ({why}); give others")
    said = {
        "folder": folder.name,
        "images": dict(counts),
        "learned_from": left,
        "unreadable": bad,
        "listing": found.notes,
    }
    return chosen, {"split": SPLIT, "labelled": said}


def _tell(name: str, counts: Counter[str], left: list[str], bad: list[str]) -> None:
    log.info("%s: evaluating %d good and %d defective images", name, counts["normal"], counts["anomalous"])
    if left:
        log.warning("%s: left out %d that the run learned from: %s", name, len(left), _some(left))
    if bad:
        log.warning("%s: left out %d that cannot be read: %s", name, len(bad), _some(bad, "; "))


def _some(names: list[str], sign: str = ", ", most: int = 10) -> str:
    return sign.join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def require_same(run: Path, data: Path) -> None:
    """Raise DataError unless *data* holds the very pictures of the run's test split."""
    from components.core.artefacts import file_hash, tree_hash

    table = read_split(run)
    test = table[table["split"] == "test"]
    other = []
    for name, digest in zip(test["image_id"], test["sha256"], strict=True):
        path = data / str(name)
        if not path.is_file():
            other.append(f"{name} (missing)")
        elif file_hash(path) != digest:
            other.append(f"{name} (other bytes)")
    if other:
        raise DataError(
            f"{run}: learned data set {table['dataset'].iloc[0]} (split {tree_hash(run / 'split.parquet')[:12]}), but "
            f"{data} holds other pictures: {len(other)} of {len(test)} test images differ, first {other[0]}; give the "
            f"folder that fit was given, or evaluate another one with --labelled {data}"
        )
