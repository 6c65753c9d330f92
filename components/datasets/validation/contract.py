"""What every file must keep; one sentence per breach. A breach quarantines the file, never more."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from components.datasets.settings import ValidationSettings
from components.pictures.masks import OTHER_SIZE, UNREADABLE, mask_paths, reason

DARK, FLAT = 0.01, 1e-5  # brightness from which on a picture is nearly black; contrast below which it has one value


def breaches(table: pd.DataFrame, settings: ValidationSettings) -> pd.Series:
    """The reason why a row breaks the contract, or None, by the table's index."""
    reasons = {row.Index: next(_of_row(row, settings), None) for row in table.itertuples()}
    found = pd.Series(reasons, dtype=object).reindex(table.index)
    return found.where(found.notna(), _contradictions(table[found.isna()]).reindex(table.index))


def _contradictions(table: pd.DataFrame) -> pd.Series:
    """The same bytes with two labels: nobody knows which is right."""
    labels = table.groupby("sha256")["label"].transform("nunique")
    reasons = {}
    for _, same in table[labels > 1].groupby("sha256"):
        known = ", ".join(f"{row.image_id} ({row.label})" for row in same.itertuples())
        reasons.update(
            {
                i: f"{same.at[i, 'image_id']}: the same bytes have two labels: {known}; keep the right one"
                for i in same.index
            }
        )
    return pd.Series(reasons, dtype=object)


def repeats(table: pd.DataFrame) -> pd.Series:
    """Why a row of the clean *table* is left out as a repeat, byte by byte, of another; no breach of the contract.

    The test side keeps its image, the training side loses the repeat; else the first by name stays.
    """
    ordered = table.assign(later=table["role"] != "test").sort_values(["later", "image_id"])
    first = ordered.groupby("sha256")["image_id"].transform("first")
    again = first != ordered["image_id"]
    return "the same bytes as " + first[again]


def _of_row(row: Any, settings: ValidationSettings) -> Iterator[str]:
    if isinstance(row.problem, str):
        yield row.problem
        return
    if row.mode not in settings.modes:
        modes = ", ".join(settings.modes)
        yield f"{row.image_id}: mode {row.mode} is not in the contract ({modes}); convert the image, {_or('modes')}"
    if not settings.min_side <= min(row.width, row.height) <= max(row.width, row.height) <= settings.max_side:
        size = f"{row.width:.0f} x {row.height:.0f} is outside {settings.min_side} to {settings.max_side} pixels"
        side = "min_side" if min(row.width, row.height) < settings.min_side else "max_side"
        yield f"{row.image_id}: {size}; export it anew, {_or(side)}"
    low, high = settings.brightness
    if not low <= row.brightness <= high:
        what = f"brightness {row.brightness:.3f} is outside {low} to {high}"
        yield f"{row.image_id}: {what}; check the exposure, {_or('brightness')}"
    if _shows_nothing(row, settings):
        what = f"shows nothing (brightness {row.brightness:.3f}, contrast {row.contrast:.4f})"
        yield f"{row.image_id}: {what}; check light and exposure, {_or('min_contrast')}"
    if settings.expect_masks:
        yield from _of_mask(row)


def _or(key: str) -> str:
    return f"or allow it with validation.{key} (`loupe fit --set validation.{key}=...`)"


def _shows_nothing(row: Any, settings: ValidationSettings) -> bool:
    """A dark field with bright edges is as dark as a covered lens: contrast tells them apart, the mean does not."""
    extreme = not DARK <= row.brightness <= 1 - DARK
    return bool(row.contrast < min(settings.min_contrast, settings.min_contrast if extreme else FLAT))


def _of_mask(row: Any) -> Iterator[str]:
    """Where masks are expected, one that is missing or cannot be read beside its picture is a breach."""
    if row.label != "anomalous":
        return
    if not mask_paths(row.mask):
        yield f"{row.image_id}: an anomalous image without a mask; add the mask, {_or('expect_masks')}"
    found = reason(getattr(row, "mask_rule", None)) or ""
    if found.startswith((UNREADABLE, OTHER_SIZE)):
        yield f"{row.image_id}: its mask {row.mask}: {found}; export the mask again, {_or('expect_masks')}"
