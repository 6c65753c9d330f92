"""Sets that say in a file which picture is what: VisA, Real-IAD, DeepPCB; and DAGM, by which masks there are."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.core.errors import DataError
from components.datasets.rows import Row, read_lines
from components.datasets.sets.layout import folders, images, inside, name, wrong

VISA = "split_csv/1cls.csv with the columns object,split,label,image,mask, and OBJECT/Data/Images and Data/Masks"
VISA_TABLE, VISA_COLUMNS = "split_csv/1cls.csv", ("object", "split", "label", "image", "mask")


def visa_rows(root: Path) -> list[Row]:
    """VisA by its one-class table; the object is the group. Raises DataError."""
    table = root / VISA_TABLE
    if not table.is_file():
        raise wrong(root, VISA)
    with read_lines(table) as reader:
        if not set(VISA_COLUMNS) <= set(reader.fieldnames or ()):
            raise DataError(f"{table}: expected {VISA}; found the columns {','.join(reader.fieldnames or ())}")
        lines = list(reader)
    if any(line[key] is None for line in lines for key in VISA_COLUMNS):
        raise DataError(f"{table}: has a line with too few columns; expected {VISA}")
    rows = [_visa_row(line, table) for line in lines if (line["split"], line["label"]) != ("train", "anomaly")]
    if not rows or not (root / rows[0].image_id).exists():
        raise wrong(root, VISA)
    return rows


def _visa_row(line: dict[str, str], table: Path) -> Row:
    if line["split"] not in ("train", "test") or line["label"] not in ("normal", "anomaly"):
        said = f"split {line['split']} and label {line['label']}"
        raise DataError(f"{table}: expected split train or test and label normal or anomaly; found {said}")
    image = inside(line["image"], table)
    if line["label"] == "normal":
        return Row(image, line["object"], "normal", "", line["split"])
    mask = inside(line["mask"], table) if line["mask"] else None
    return Row(image, line["object"], "anomalous", "anomaly", "test", mask)


REAL_IAD = (
    "realiad_1024 (or _512, _256, _raw) with CATEGORY/OK and CATEGORY/NG, and realiad_jsons/CATEGORY.json "
    "(or realiad_jsons/realiad_jsons/CATEGORY.json) with the keys meta, train and test"
)
RESOLUTIONS = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw")


def real_iad_rows(root: Path) -> list[Row]:
    """Real-IAD by its standard lists, at the largest size there is; the category is the group. Raises DataError."""
    sizes = [size for size in RESOLUTIONS if (root / size).is_dir()]
    lists = [*root.glob("realiad_jsons/*.json"), *root.glob("realiad_jsons/realiad_jsons/*.json")]
    if not sizes or not lists:
        raise wrong(root, REAL_IAD)
    rows = [row for path in sorted(lists) for row in _real_iad(path, sizes[0])]
    return [row for row in rows if (root / sizes[0] / row.group).is_dir()]


def _real_iad(path: Path, size: str) -> Iterator[Row]:
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        meta = listed["meta"]
        good, prefix = meta.get("normal_class", "OK"), meta.get("prefix") or f"{path.stem}/"
        for side in ("train", "test"):
            yield from (_real_iad_row(item, path, side, good, f"{size}/{prefix}") for item in listed[side])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: expected the keys meta, train and test of Real-IAD's lists; found {what}") from error


def _real_iad_row(item: dict[str, Any], path: Path, side: str, good: str, prefix: str) -> Row:
    image, kind = inside(prefix + item["image_path"], path), str(item["anomaly_class"])
    if kind == good:
        return Row(image, path.stem, "normal", "", side)
    if side == "train":
        raise DataError(f"{path}: expected good training pictures alone; found {image} of class {kind}")
    mask = inside(prefix + item["mask_path"], path) if item.get("mask_path") else None
    return Row(image, path.stem, "anomalous", kind, "test", mask)


DAGM = "CLASS/Train/NNNN.PNG, CLASS/Test/NNNN.PNG and a mask CLASS/Train/Label/NNNN_label.PNG of each defective one"


def dagm_rows(root: Path) -> list[Row]:
    """DAGM 2007; the class is the group. Defective pictures are those with a mask; of Train they are left out."""
    classes = [at for at in folders(root) if (at / "Train").is_dir() and (at / "Test").is_dir()]
    if not classes or not all((at / side / "Label").is_dir() for at in classes for side in ("Train", "Test")):
        raise wrong(root, DAGM)
    return [row for at in classes for side in ("Train", "Test") for row in _dagm(root, at, side)]


def _dagm(root: Path, at: Path, side: str) -> Iterator[Row]:
    masks = {p.stem.removesuffix("_label"): p for p in images(at / side / "Label") if p.stem.endswith("_label")}
    for picture in images(at / side):
        if picture.stem not in masks:
            yield Row(name(root, picture), at.name, "normal", "", side.lower())
        elif side == "Test":
            yield Row(name(root, picture), at.name, "anomalous", "defect", "test", name(root, masks[picture.stem]))


DEEPPCB = (
    "PCBData/trainval.txt and PCBData/test.txt, whose lines name groupG/G/NAME.jpg; NAME_temp.jpg and NAME_test.jpg"
)


def deeppcb_rows(root: Path) -> list[Row]:
    """DeepPCB: templates are the normals, tested pictures of test.txt the anomalous ones; the board is the group."""
    at = root / "PCBData" if (root / "PCBData").is_dir() else root
    if not all((at / f"{side}.txt").is_file() for side in ("trainval", "test")):
        raise wrong(root, DEEPPCB)
    prefix = name(root, at) + "/" if at != root else ""
    rows = [row for side in ("trainval", "test") for row in _pcb(at / f"{side}.txt", prefix, side)]
    if not rows or not (root / rows[0].image_id).exists():
        raise wrong(at, DEEPPCB)
    return rows


def _pcb(path: Path, prefix: str, side: str) -> Iterator[Row]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        stem = prefix + inside(line.split()[0], path).removesuffix(".jpg")
        board = stem.removeprefix(prefix).partition("/")[0]
        yield Row(f"{stem}_temp.jpg", board, "normal", "", "train" if side == "trainval" else "test")
        if side == "test":
            yield Row(f"{stem}_test.jpg", board, "anomalous", "defect", "test")
