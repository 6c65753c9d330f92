"""Where a reviewer drew a defect: boxes and strokes in pixels of the picture, as JSON in a label, and as a mask."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

KINDS = ("box", "polygon", "stroke")
Shape = Mapping[str, Any]  # kind, points [[x, y], ...], of a stroke its width; a box has two opposite corners


def read_shapes(label: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those of a label; none in rows of older versions."""
    return list(json.loads(label.get("shapes") or "[]"))


def box_of(shape: Shape) -> tuple[float, float, float, float]:
    """The smallest box around a shape: left, top, right, bottom; a stroke reaches half its width beyond its line."""
    points = np.asarray(shape["points"], float)
    reach = float(shape.get("width") or 0) / 2 if shape["kind"] == "stroke" else 0.0
    (left, top), (right, bottom) = points.min(0) - reach, points.max(0) + reach
    return float(left), float(top), float(right), float(bottom)


def outline_of(shape: Shape) -> list[list[float]]:
    """The corners of a box or polygon; a stroke is told by the box around it."""
    if shape["kind"] == "polygon":
        return [[float(x), float(y)] for x, y in shape["points"]]
    left, top, right, bottom = box_of(shape)
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def drawn_mask(shapes: Sequence[Shape], width: int, height: int) -> np.ndarray:
    """(height, width) uint8: 255 inside a shape, 0 elsewhere."""
    from PIL import Image, ImageDraw

    image = Image.new("L", (width, height))
    pen = ImageDraw.Draw(image)
    for shape in shapes:
        points = [(float(x), float(y)) for x, y in shape["points"]]
        if shape["kind"] == "stroke":
            _stroke(pen, points, max(1, round(float(shape.get("width") or 1))))
        elif shape["kind"] == "polygon":
            pen.polygon(points, fill=255, outline=255)
        else:
            left, top, right, bottom = box_of(shape)
            pen.rectangle(
                (round(left), round(top), max(round(left), round(right) - 1), max(round(top), round(bottom) - 1)), 255
            )
    return np.asarray(image)


def _stroke(pen: Any, points: list[tuple[float, float]], width: int) -> None:
    reach = width / 2
    if len(points) > 1:
        pen.line(points, fill=255, width=width, joint="curve")
    for x, y in points:  # round ends and corners
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=255)
