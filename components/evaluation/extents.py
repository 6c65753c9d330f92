"""Recall of real defects by their size: what a line finds of small ones, and what of large ones.

The extent of a region is the root of its pixels in the picture itself, as that of synthetic anomalies is
(``records.SYNTHETIC_COLUMNS``), and the classes are theirs: what is found of real defects stands beside what check.json
says of made ones. The labels report and never choose.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from components.core.records import SIZE_NAMES, SIZES
from components.core.shares import share_interval
from components.pictures.masks import TINY, Region, numbered

LARGEST = "1.0"  # of the scale of heat maps: what no pixel of any calibrate normal exceeds


@dataclass(frozen=True)
class Marks:
    """The regions of one picture's mask, and which cells of its map they touch; regions come in one order."""

    sizes: tuple[Region, ...]
    extents: np.ndarray  # (R,) float: pixels of the picture
    cells: np.ndarray  # (K,) int: row * size + column
    owners: np.ndarray  # (K,) int: the region of each cell; a cell that two regions touch is there twice

    def peaks(self, heat: np.ndarray) -> np.ndarray:
        """(R,): the largest value of the map *heat*, (size, size), within each region."""
        found = np.full(len(self.extents), -np.inf)
        np.maximum.at(found, self.owners, heat.ravel()[self.cells])
        return found


def marks(mask: np.ndarray, size: int) -> Marks:
    """The regions of *mask*, bool (H, W), on a map of (size, size): a region has the cells that ``masks.at_size`` gives
    to its pixels alone."""
    numbers, sizes = numbered(mask)
    extents = np.sqrt(np.bincount(numbers.ravel(), minlength=len(sizes) + 1)[1:])
    for axis, count in enumerate(mask.shape):
        if count < size:
            numbers = numbers.take((2 * np.arange(size) + 1) * count // (2 * size), axis)
    owners, cells = np.concatenate([_row(numbers, row, size) for row in range(size)], 1)
    return Marks(sizes, extents, cells, owners)


def _row(numbers: np.ndarray, row: int, size: int) -> np.ndarray:
    """(2, K): owners and cells of one row of the map; *numbers* (H, W) has no fewer pixels than it has cells.

    Row by row, since the pixels of a large picture whose mask marks much of it would fill gigabytes.
    """
    height, width = numbers.shape
    part = numbers[row * height // size : ((row + 1) * height - 1) // size + 1]
    y, x = np.nonzero(part)
    owners = part[y, x].astype(np.int64) - 1
    both = (x * size // width, ((x + 1) * size - 1) // width)  # the first and the last cell that a pixel touches
    owners, columns = np.divmod(np.unique(np.concatenate([owners * size + column for column in both])), size)
    return np.stack([owners, row * size + columns])


def add_recall(
    metrics: dict[str, Any],
    result: pd.DataFrame,
    known: Mapping[int, Marks],
    maps: np.ndarray,
    scale: Mapping[str, float],
    seen: int,
) -> None:
    """Put ``sizes`` into the figures of *metrics*, overall and per group; *result* as for ``evaluate.measure``.

    *scale* is that of the calibrated heat maps, *seen* the side at which the detector sees defects.
    """
    defects = result[result["label"] == "anomalous"]
    limit = scale.get(LARGEST)
    metrics["overall"]["sizes"] = recall(defects, known, maps, limit, seen)
    for name, own in metrics["groups"].items():
        own["sizes"] = recall(defects[defects["group"].astype(str) == name], known, maps, limit, seen)


def recall(
    defects: pd.DataFrame, known: Mapping[int, Marks], maps: np.ndarray, limit: float | None, seen: int
) -> dict[str, Any]:
    """By class of extent: of pictures, by their largest region, those called anomalous; of regions those in which the
    map exceeds *limit* somewhere, whatever is said of their picture."""
    rows = [row for row in defects.index if row in known]
    if not rows:
        return {"not_available": "no anomalous picture tells where its defects are"}
    called = (defects.loc[rows, "decision"] == "anomalous").to_numpy()
    largest = _classes(np.array([known[row].extents.max() for row in rows]))
    own = _classes(np.concatenate([known[row].extents for row in rows]))
    tiny = np.array([seen * region.share < TINY for row in rows for region in known[row].sizes])
    peaks = np.concatenate([known[row].peaks(maps[row]) for row in rows])
    classes = {
        name: {
            "pictures": _share(called[largest == number]),
            "regions": {**_regions(peaks[own == number], limit), "tiny": int(tiny[own == number].sum())},
        }
        for number, name in enumerate(SIZE_NAMES)
        if (own == number).any()
    }
    return {"map_limit": limit, "unmarked": len(defects) - len(rows), "classes": classes}


def _classes(extents: np.ndarray) -> np.ndarray:
    """The number of the class of each extent."""
    return np.digitize(extents, SIZES[1:-1])


def _regions(peaks: np.ndarray, limit: float | None) -> dict[str, Any]:
    return {"n": len(peaks)} if limit is None else _share(peaks > limit)


def _share(found: np.ndarray) -> dict[str, Any]:
    n, hits = len(found), int(found.sum())
    return {"n": n, "found": hits, "recall": hits / n, "interval": share_interval(hits, n)} if n else {"n": 0}
