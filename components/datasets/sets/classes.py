"""Sets of classes without good and bad: a view says which classes are normal (docs/data.md, one-class views).

Every picture is listed as a normal one of its class, which is its group.
"""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from components.core.errors import DataError
from components.datasets.rows import Row
from components.datasets.sets.layout import TEST_EVERY, folders, images, name, with_test_side, wrong
from components.datasets.sets.packed import cifar_10, cifar_100, mnist
from components.pictures.listing import pictures

CLASSES = "train/CLASS/NAME.png and test/CLASS/NAME.png"


def rows(root: Path) -> list[Row]:
    """A folder per class below train and test. Raises DataError, also for the published files, still packed."""
    if any(packed(root) for packed in (cifar_10, cifar_100, mnist)):
        raise DataError(
            f"{root}: expected {CLASSES}; found the published files, which hold many pictures each: unpack them with "
            f"`loupe data add NAME --adapter ADAPTER --source {root}`"
        )
    sides = {side: folders(root / side) for side in ("train", "test")}
    found = [
        Row(name(root, picture), at.name, "normal", "", side)
        for side, classes in sides.items()
        for at in classes
        for picture in images(at)
    ]
    if {row.role for row in found} != set(sides):
        raise wrong(root, CLASSES)
    return found


def digits_fetch(out: Path) -> None:
    """Write scikit-learn's digits; BMP, whose bytes no version of an encoder changes. Every fifth of a class: test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    shades = np.round(found.images * (255 / 16)).astype(np.uint8)  # 17 levels of grey
    for digit in range(10):
        for i, number in enumerate(np.flatnonzero(found.target == digit)):
            path = out / ("train" if i % TEST_EVERY else "test") / str(digit) / f"{number:04d}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(shades[number]).save(path)


NEU_KINDS = {
    "cr": "crazing",
    "in": "inclusion",
    "pa": "patches",
    "ps": "pitted_surface",
    "rs": "rolled-in_scale",
    "sc": "scratches",
}
NEU = "pictures KIND_NUMBER.bmp or .jpg, in one folder or several, KIND one of " + ", ".join(
    f"{short.title()} or {kind}" for short, kind in NEU_KINDS.items()
)


def neu_rows(root: Path) -> list[Row]:
    """NEU's steel surfaces: the kind of defect, which the file's name begins with, is the class. Raises DataError."""
    found: dict[str, list[Row]] = {}
    for picture in pictures(root).taken:
        begins = re.match(r"(.+)_\d+$", picture.stem.lower())
        kind = NEU_KINDS.get(begins[1], begins[1]) if begins else ""
        if kind not in NEU_KINDS.values():
            raise DataError(f"{root}: expected {NEU}; found {name(root, picture)}")
        found.setdefault(kind, []).append(Row(name(root, picture), kind, "normal", "", "train"))
    if not found:
        raise wrong(root, NEU)
    return [row for kind in sorted(found) for row in with_test_side(found[kind])]
