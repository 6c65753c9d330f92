"""What every file must keep; one sentence per breach. A breach quarantines the file, never more."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image


@dataclass(frozen=True)
class ValidationSettings:
    """The data contract. Sizes in pixels, brightness in [0, 1]; *expect_masks* True: anomalous images need a mask."""

    modes: tuple[str, ...] = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I")
    min_side: int = 32
    max_side: int = 10_000
    brightness: tuple[float, float] = (0.01, 0.99)
    min_train_normals: int = 20
    expect_masks: bool = False
    max_quarantined_share: float = 0.05


def breaches(table: pd.DataFrame, data: Path, settings: ValidationSettings) -> pd.Series:
    """The reason why a row breaks the contract, or None, by the table's index."""
    reasons = {row.Index: next(_of_row(row, data, settings), None) for row in table.itertuples()}
    found = pd.Series(reasons, dtype=object).reindex(table.index)
    return found.where(found.notna(), _contradictions(table[found.isna()]).reindex(table.index))


def _contradictions(table: pd.DataFrame) -> pd.Series:
    """The same bytes with two labels: nobody knows which is right."""
    labels = table.groupby("sha256")["label"].transform("nunique")
    reasons = {}
    for _, same in table[labels > 1].groupby("sha256"):
        known = ", ".join(f"{row.image_id} ({row.label})" for row in same.itertuples())
        reasons.update({i: f"{same.at[i, 'image_id']}: the same bytes have two labels: {known}; keep the right one"
                        for i in same.index})  # fmt: skip
    return pd.Series(reasons, dtype=object)


def repeats(table: pd.DataFrame) -> pd.Series:
    """Why a row of the clean *table* is left out as a repeat, byte by byte, of another; no breach of the contract.

    The test side keeps its image, the training side loses the repeat; else the first by name stays.
    """
    ordered = table.assign(later=table["role"] != "test").sort_values(["later", "image_id"])
    first = ordered.groupby("sha256")["image_id"].transform("first")
    again = first != ordered["image_id"]
    return "the same bytes as " + first[again]


def _of_row(row: Any, data: Path, settings: ValidationSettings) -> Iterator[str]:
    if isinstance(row.problem, str):
        yield row.problem
        return
    if row.mode not in settings.modes:
        yield f"{row.image_id}: mode {row.mode} is not in the contract ({', '.join(settings.modes)}); convert the image"
    if not settings.min_side <= min(row.width, row.height) <= max(row.width, row.height) <= settings.max_side:
        size = f"{row.width:.0f} x {row.height:.0f}"
        yield f"{row.image_id}: {size} is outside {settings.min_side} to {settings.max_side} pixels; export it anew"
    low, high = settings.brightness
    if not low <= row.brightness <= high:
        yield f"{row.image_id}: brightness {row.brightness:.3f} is outside {low} to {high}; check the exposure"
    yield from _of_mask(row, data, settings)


def _of_mask(row: Any, data: Path, settings: ValidationSettings) -> Iterator[str]:
    if row.label != "anomalous":
        return
    if not isinstance(row.mask, str):
        if settings.expect_masks:
            yield f"{row.image_id}: an anomalous image without a mask; add the mask"
        return
    try:
        with Image.open(data / row.mask) as mask:
            size = mask.size
            np.asarray(mask)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        yield f"{row.mask}: the mask cannot be read ({error}); export it again"
        return
    if size != (row.width, row.height):
        yield f"{row.mask}: mask is {size}, image is ({row.width:.0f}, {row.height:.0f}); export the mask again"
