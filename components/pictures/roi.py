"""The region of interest as a user draws it, a mask image or polygons, as the text of ``framing``; docs/region.md."""

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from components.core.errors import DataError
from components.core.settings import shown
from components.pictures.decoding import SUFFIXES
from components.pictures.framing import ANY
from components.pictures.masks import marked

LONGEST = 1024  # pixels of the longer side that is kept: finer than any detector looks
FINER = 4  # polygons are drawn so many times finer, and a pixel counts that they cover by half
TEXT = re.compile(rf"({ANY}|\d+x\d+):[A-Za-z0-9+/]+=*$")
FORM = 'write [[x, y], ...] from 0 to 1, or {"size": [width, height], "polygons": [[[x, y], ...], ...]} in pixels'
Size = tuple[int, int]
Polygon = list[tuple[float, float]]


def region_text(given: str) -> str:
    """The text of the region that *given* is, or that the file of this name draws. Raises DataError."""
    if TEXT.match(given):
        return given
    path = Path(given)
    if not path.is_file():
        raise DataError(f"{given}: not found; give a mask image or a JSON file of polygons as region of interest")
    if path.suffix.lower() == ".json":
        size, mask = _polygons(path)
    elif path.suffix.lower() in SUFFIXES:
        mask = marked(path)
        size, mask = (mask.shape[1], mask.shape[0]), _reduced(mask)
    else:
        raise DataError(f"{path}: is no region of interest; give a mask image, or polygons in a .json file")
    if not mask.any() or mask.all():
        what = "nothing" if not mask.any() else "the whole picture"
        raise DataError(f"{path}: marks {what}; mark what is to be looked at, and leave something unmarked")
    return written(mask, size)


def written(mask: np.ndarray, size: Size | None) -> str:
    """The text of *mask*, bool (h, w), drawn for pictures of *size* (W, H); None: of any."""
    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG", optimize=True)
    return f"{f'{size[0]}x{size[1]}' if size else ANY}:{base64.b64encode(stream.getvalue()).decode()}"


def pinned(roi: str, size: Size) -> str:
    """*roi* for pictures shaped like *size* (W, H), where it was for any."""
    return f"{size[0]}x{size[1]}:{roi.partition(':')[2]}" if roi.startswith(f"{ANY}:") else roi


def _grid(size: Size) -> Size:
    scale = min(1.0, LONGEST / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _reduced(mask: np.ndarray) -> np.ndarray:
    levels = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(levels.resize(_grid(levels.size), Image.Resampling.BOX)) >= 128


def _polygons(path: Path) -> tuple[Size | None, np.ndarray]:
    """What a JSON file draws: the size that it says, and the mask on a grid. Raises DataError."""
    try:
        said = json.loads(path.read_text())
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{path}: is no JSON ({' '.join(str(error).split())}); {FORM}") from error
    values = said if isinstance(said, dict) else {"polygons": said}
    if unknown := values.keys() - {"size", "polygon", "polygons"}:
        raise DataError(f"{path}: knows no {shown(sorted(unknown)[0])}; {FORM}")
    if ("polygon" in values) == ("polygons" in values):
        raise DataError(f"{path}: has no polygons, or both of polygon and polygons; {FORM}")
    size = _size(path, values["size"]) if "size" in values else None
    found = values["polygons"] if "polygons" in values else [values["polygon"]]
    if isinstance(found, list) and found and _is_point(found[0]):
        found = [found]
    if not isinstance(found, list) or not found:
        raise DataError(f"{path}: holds no polygon; {FORM}")
    polygons = [_polygon(path, number, points, size) for number, points in enumerate(found, 1)]
    return size, _drawn(polygons, size)


def _size(path: Path, given: Any) -> Size:
    whole = isinstance(given, list) and len(given) == 2 and all(type(side) is int and side > 0 for side in given)
    if not whole:
        raise DataError(f"{path}: size is {shown(given)}; give [width, height] in pixels of the pictures")
    return given[0], given[1]


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(v) in (int, float) for v in value)


def _polygon(path: Path, number: int, points: Any, size: Size | None) -> Polygon:
    if not isinstance(points, list) or len(points) < 3:
        raise DataError(f"{path}: polygon {number} is no list of three or more points; {FORM}")
    width, height = size or (1, 1)
    for at, point in enumerate(points, 1):
        if not _is_point(point):
            raise DataError(f"{path}: point {at} of polygon {number} is {shown(point)}; write [x, y]")
        if not (0 <= point[0] <= width and 0 <= point[1] <= height):
            where = f"the {width} x {height} pixels of size" if size else "0 to 1; pixels need a size"
            raise DataError(f"{path}: point {at} of polygon {number} is {shown(point)}, outside {where}; {FORM}")
    return [(point[0] / width, point[1] / height) for point in points]


def _drawn(polygons: list[Polygon], size: Size | None) -> np.ndarray:
    """Bool (h, w): what the polygons, relative to the picture, cover together."""
    width, height = _grid(size or (LONGEST, LONGEST))
    fine = Image.new("L", (FINER * width, FINER * height))
    for polygon in polygons:
        # A pixel's number is that of its middle.
        points = [(x * fine.width - 0.5, y * fine.height - 0.5) for x, y in polygon]
        ImageDraw.Draw(fine).polygon(points, fill=255)
    return np.asarray(fine.resize((width, height), Image.Resampling.BOX)) >= 128
