"""What is known of the pixels of labelled pictures, at the size of the maps."""

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.evaluation.extents import Marks, marks
from components.pictures.decoding import Decoding
from components.pictures.framing import region
from components.pictures.masks import EMPTY, Region, at_size, mask_paths, reason, sizes, tiny_defects, truth

log = logging.getLogger("loupe")


@dataclass(frozen=True)
class Truths:
    """Masks by row: empty ones for normal images, none for an anomalous image whose truth is not known."""

    masks: dict[int, np.ndarray]
    said: dict[str, Any]
    marks: dict[int, Marks] = field(default_factory=dict)  # the regions of those that mark something
    outside: list[int] = field(default_factory=list)  # rows whose defects all lie outside the region of interest

    @property
    def regions(self) -> list[Region]:
        return [region for known in self.marks.values() for region in known.sizes]

    def defects(self, size: int) -> dict[str, Any]:
        """How large the marked regions are at the working size; a warning where they are nearly nothing."""
        known = sizes(self.regions)
        if known is None:
            return {"regions": 0}
        if warning := tiny_defects(known, size):
            log.warning("%s", warning)
        seen = {"median_side_seen": size * known.share, "least_side_seen": size * known.least}
        return {"regions": known.count, "size": size, "median_side": known.pixels, **seen, "warning": warning}


def read_truths(table: pd.DataFrame, data: Path, size: int, rules: Decoding) -> Truths:
    """The masks of *table* at *size*, with the number of those that tell nothing, by the reason, in the log."""
    masks: dict[int, np.ndarray] = {}
    found, unknown, without, outside, cut = dict[int, Marks](), Counter[str](), 0, list[int](), 0
    for i, row in enumerate(table.to_dict("records")):
        if row["label"] == "normal":
            masks[i] = np.zeros((size, size), bool)
            continue
        whole = truth(data, row["mask"], row.get("mask_rule"), rules.whole)
        if whole is not None and whole.any():
            counts = region(rules.roi, whole.shape)
            marked = whole if counts is None else whole & counts
            cut += bool((marked != whole).any())
            if not marked.any():
                outside.append(i)
                continue
            masks[i] = at_size(marked, size)
            found[i] = marks(marked, size)
        elif mask_paths(row["mask"]):
            unknown[(reason(row.get("mask_rule")) or EMPTY).partition(" (")[0]] += 1
        else:
            without += row["label"] == "anomalous"
    for why, count in unknown.items():
        log.warning("of %d images the mask does not tell: %s; they are left out of pixel figures", count, why)
    used = sum(bool(mask.any()) for mask in masks.values())
    said: dict[str, Any] = {"used": used, "unknown": dict(unknown), "without": without}
    if rules.roi:
        said["region"] = {"cut": cut - len(outside), "outside": len(outside)}
    if outside:
        log.warning("the defects of %d images lie outside the region of interest: in no figure", len(outside))
    return Truths(masks, said, found, outside)
