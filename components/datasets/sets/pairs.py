"""Pictures whose mask has the same name with an ending: KolektorSDD and KolektorSDD2 beside them, AITEX elsewhere."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.datasets.rows import Row
from components.datasets.sets.layout import TEST_EVERY, folders, images, joined, name, with_test_side, wrong
from components.pictures.masks import marked


@dataclass(frozen=True)
class Pairs:
    """Folders whose name *folder* matches hold pictures and, beside each, its mask: named so with *ending*.

    No file says which pictures are good: a mask that marks nothing does. *sides*: the folders are train and test;
    else each is an item, and the good pictures of items whose number divides by 5 are for testing.
    """

    folder: str
    ending: str
    expected: str
    sides: bool = False


def rows(pairs: Pairs, root: Path) -> list[Row]:
    """All pictures but defective ones of a train folder. Raises DataError, also for a picture without a mask."""
    found = [at for at in folders(root) if re.fullmatch(pairs.folder, at.name)]
    if not found or (pairs.sides and len(found) < 2):
        raise wrong(root, pairs.expected)
    return [row for at in found for row in _folder(pairs, root, at)]


def _folder(pairs: Pairs, root: Path, at: Path) -> Iterator[Row]:
    files = images(at)
    masks = {p.stem.removesuffix(pairs.ending): p for p in files if p.stem.endswith(pairs.ending)}
    pictures = [p for p in files if not p.stem.endswith(pairs.ending)]
    if not pictures or any(picture.stem not in masks for picture in pictures):
        raise wrong(at, pairs.expected)
    group = root.name if pairs.sides else at.name
    tested = at.name == "test" if pairs.sides else int(re.sub(r"\D", "", at.name)) % TEST_EVERY == 0
    for picture in pictures:
        mask = masks[picture.stem]
        if not marked(mask).any():
            yield Row(name(root, picture), group, "normal", "", "test" if tested else "train")
        elif tested or not pairs.sides:
            yield Row(name(root, picture), group, "anomalous", "defect", "test", name(root, mask))


AITEX = (
    "NODefect_images/FABRIC/NNNN_000_FF.png, Defect_images/NNNN_DDD_FF.png and Mask_images/NNNN_DDD_FF_mask.png "
    "(several: _mask1.png, _mask2.png)"
)


def aitex_rows(root: Path) -> list[Row]:
    """AITEX: the fabric, the last number of a name, is the group; the number before is the defect. Raises DataError."""
    good = [p for folder in folders(root / "NODefect_images") for p in images(folder)]
    bad = images(root / "Defect_images")
    if not good or not bad or any(not re.fullmatch(r"\d+_\d+_\d+", p.stem) for p in (*good, *bad)):
        raise wrong(root, AITEX)
    masks: dict[str, list[Path]] = {}
    for mask in images(root / "Mask_images"):
        masks.setdefault(re.sub(r"_mask\d*$", "", mask.stem), []).append(mask)
    fabrics = sorted({_fabric(p) for p in good})
    normals = [[Row(name(root, p), f, "normal", "", "train") for p in good if _fabric(p) == f] for f in fabrics]
    return [
        *(row for fabric in normals for row in with_test_side(fabric)),
        *(_defective(root, p, masks.get(p.stem, [])) for p in bad),
    ]


def _fabric(picture: Path) -> str:
    return picture.stem.rpartition("_")[2]


def _defective(root: Path, picture: Path, masks: list[Path]) -> Row:
    kind = picture.stem.split("_")[1]
    return Row(name(root, picture), _fabric(picture), "anomalous", kind, "test", joined(root, masks))
