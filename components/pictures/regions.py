"""The regions of a defect: where a heat map lies above what normal pictures show, as boxes in the picture's pixels.

A heat map is as large as its picture, whatever squares it was made of, and lies nowhere above the limit outside the
region of interest. numpy alone: a line's computer need not have scipy.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

MOST = 16  # regions of one picture that are told, those of the highest peaks
LIMIT, VISIBLE = "1.0", "0.99"  # of the scale of heat maps: the most that a normal picture showed, and what is drawn


class Runs(NamedTuple):
    """Pixels of a mask that lie beside each other in a row, *start* to *stop* (not included), row by row."""

    row: np.ndarray
    start: np.ndarray
    stop: np.ndarray


def regions(heat: np.ndarray, scale: Mapping[str, float], most: int = MOST) -> list[dict[str, Any]]:
    """What of *heat* (H, W) lies above the most that normal pictures showed, the highest peak first.

    *scale* is ``map`` of calibration.json. Each region has ``box`` [x, y, width, height], ``area`` in pixels,
    ``centroid`` [x, y] and ``peak``, its largest value. Pixels that touch at a corner are of one region. Where nothing
    lies above that limit, it is the most visible spot around the largest value, or nothing.
    """
    limit = float(scale[LIMIT])
    if not (above := heat > limit).any():
        visible = heat > float(scale[VISIBLE])
        return _measured(heat, visible)[:1] if visible.any() else []
    return _measured(heat, above)[:most]


def as_text(found: list[dict[str, Any]] | None) -> str | None:
    """Regions as the column ``regions`` of a table holds them: JSON; None where they are not known."""
    return None if found is None else json.dumps(found)


def of_text(text: str | None) -> list[dict[str, Any]] | None:
    """The regions that a column holds."""
    return None if text is None else list(json.loads(text))


def _measured(heat: np.ndarray, mask: np.ndarray) -> list[dict[str, Any]]:
    runs = _runs(mask)
    label, count = _labels(runs)
    length = runs.stop - runs.start
    area = np.bincount(label, length, count)
    x = np.bincount(label, length * (runs.start + runs.stop - 1) / 2, count) / area
    y = np.bincount(label, length * runs.row, count) / area
    peaks = np.maximum.reduceat(heat[mask], np.cumsum(length) - length)
    told = zip(_edge(runs.start, label, count), _edge(runs.row, label, count), strict=True)
    ends = zip(-_edge(-runs.stop, label, count), 1 - _edge(-runs.row, label, count), strict=True)
    peak = -_edge(-peaks.astype(np.float64), label, count)
    found = [
        {
            "box": [int(left), int(top), int(right - left), int(bottom - top)],
            "area": int(area[i]),
            "centroid": [round(float(x[i]), 2), round(float(y[i]), 2)],
            "peak": float(peak[i]),
        }
        for i, ((left, top), (right, bottom)) in enumerate(zip(told, ends, strict=True))
    ]
    return sorted(found, key=lambda one: (-one["peak"], one["box"]))


def _runs(mask: np.ndarray) -> Runs:
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, start = np.nonzero(edges == 1)
    return Runs(row, start, np.nonzero(edges == -1)[1])


def _labels(runs: Runs) -> tuple[np.ndarray, int]:
    """The number of each run's region, and how many there are."""
    one, other = _touching(runs)
    label = np.arange(len(runs.row))
    while (label[one] != label[other]).any():
        least = np.minimum(label[one], label[other])
        for side in (label[one], label[other]):  # what a run was labelled by gets the smaller label, and all behind it
            np.minimum.at(label, side, least)
        while (label[label] != label).any():
            label = label[label]
    names, label = np.unique(label, return_inverse=True)
    return label, len(names)


def _touching(runs: Runs) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of runs in rows below each other that share a side or a corner."""
    wide = int(runs.stop.max()) + 2
    start, stop = runs.row * wide + runs.start, runs.row * wide + runs.stop
    first = np.searchsorted(stop, start + wide, "left")
    last = np.searchsorted(start, stop + wide, "right")
    count = np.maximum(last - first, 0)
    one = np.repeat(np.arange(len(start)), count)
    return one, np.arange(len(one)) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)


def _edge(values: np.ndarray, label: np.ndarray, count: int) -> np.ndarray:
    """The least of *values* of each label."""
    least = np.full(count, np.inf)
    np.minimum.at(least, label, values)
    return least
