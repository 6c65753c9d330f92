"""One adapter per public data set, and ``folder``: from a native folder to one row per image.

An adapter only lists: it reads names and labels, never pixels, so that broken files are listed too and judged later.
Protocols and licences: docs/data.md.
"""

import importlib.util
import logging
import shutil
from dataclasses import replace
from pathlib import Path

from components.core.errors import DataError, SettingsError
from components.core.filenames import inside
from components.datasets.folders import note_lines, read_folder
from components.datasets.rows import DEFAULT, GROUPS, Adapter, Listed, Naming, Row, counted, read_lines
from components.datasets.sets.layout import with_test_side
from components.datasets.sets.published import PUBLISHED
from components.datasets.videos import clips_rows, cuhk_avenue_rows, shanghaitech_rows, ucsd_ped2_rows
from components.pictures.masks import mask_paths

log = logging.getLogger("loupe")


def elpv_rows(root: Path) -> list[Row]:
    """ELPV solar cells: labels.csv gives a defect probability; 0 normal, 1 anomalous, the two between uncertain."""
    table = root / "labels.csv"
    if not table.exists():
        raise DataError(f"{table}: not found; bring the data in with `loupe data add elpv --adapter elpv`")
    try:
        rows = [_elpv_row(line, root) for line in table.read_text().splitlines() if line.strip()]
    except ValueError as error:
        raise DataError(f"{table}: is not the list of the data set ({error}); bring it in again") from error
    groups = sorted({row.group for row in rows})
    normals = [r for g in groups for r in with_test_side(r for r in rows if r.label == "normal" and r.group == g)]
    return sorted([*normals, *(r for r in rows if r.label != "normal")], key=lambda row: row.image_id)


def _elpv_row(line: str, root: Path) -> Row:
    name, probability, group = line.split()
    inside(root, name)
    label = {0.0: "normal", 1.0: "anomalous"}.get(float(probability), "uncertain")
    return Row(name, group, label, "" if label == "normal" else f"probability {float(probability):.2f}", "test")


def elpv_fetch(out: Path) -> None:
    """Copy the images and labels out of the installed PyPI package ``elpv-dataset``. Raises DataError."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise DataError("elpv: the package elpv-dataset is not installed; run `make setup` or pip install elpv-dataset")
    source = Path(spec.origin).parent / "data"
    shutil.copytree(source / "images", out / "images", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    shutil.copy2(source / "labels.csv", out / "labels.csv")


def mtd_rows(root: Path) -> list[Row]:
    """Magnetic tiles: MT_<type>/Imgs/*.jpg, a defect's mask beside it as .png; MT_Free are the normals."""
    folders = sorted(root.glob("MT_*/Imgs"))
    if not folders:
        raise DataError(f"{root}: holds no MT_*/Imgs folders; give the unpacked magnetic tile data set")
    rows = []
    for folder in folders:
        defect = folder.parent.name.removeprefix("MT_").lower()
        names = [p.relative_to(root).as_posix() for p in sorted(folder.glob("*.jpg"))]
        if defect == "free":
            rows += with_test_side(Row(name, "mtd", "normal", "", "train") for name in names)
        else:
            rows += [Row(n, "mtd", "anomalous", defect, "test", n.removesuffix(".jpg") + ".png") for n in names]
    return rows


def folder_rows(root: Path, naming: Naming = DEFAULT) -> list[Row]:
    """MVTec layout: train/good, test/good, test/<defect>, ground_truth/<defect>/<stem>_mask.png."""
    return read_folder(root, naming).rows


COLLECTED_TABLE = "images.csv"
COLLECTED_COLUMNS = ("image_id", "group", "label", "defect", "role", "mask", "mask_rule")


def collected_rows(root: Path) -> list[Row]:
    """A folder that a retraining wrote: images.csv lists what it took from the champion's data and from production."""
    table = root / COLLECTED_TABLE
    if not table.exists():
        raise DataError(f"{table}: not found; folders of this kind are written by `loupe retrain`")
    with read_lines(table) as reader:
        if missing := set(COLLECTED_COLUMNS[:6]) - set(reader.fieldnames or ()):
            raise DataError(f"{table}: has no column {sorted(missing)[0]}; bring it back from a copy")
        return [_collected(row, table) for row in reader]


def _collected(row: dict[str, str], table: Path) -> Row:
    if None in row or None in row.values() or row["label"] not in ("normal", "anomalous", "uncertain"):
        raise DataError(f"{table}: has a line that is none of `loupe retrain`; bring it back from a copy")
    for name in (row["image_id"], *mask_paths(row["mask"])):
        inside(table.parent, name)
    said = {key: row[key] for key in COLLECTED_COLUMNS[:5]}
    return Row(**said, mask=row["mask"] or None, mask_rule=row.get("mask_rule") or None)


def bsdata_read(root: Path, naming: Naming = DEFAULT) -> Listed:
    """Ball-screw drives in MVTec layout: the position is the group; files are POSITION_TIME.png."""
    listed = read_folder(root, naming)
    rows = [replace(row, group=Path(row.image_id).stem.rpartition("_")[0]) for row in listed.rows]
    return Listed(rows, listed.notes)


def kolektor_read(root: Path, naming: Naming = DEFAULT) -> Listed:
    """KolektorSDD in MVTec layout: the item, eight pictures of one part, is the group; files are ITEM_PART.jpg."""
    listed = read_folder(root, naming)
    rows = [replace(row, group=Path(row.image_id).stem.partition("_")[0]) for row in listed.rows]
    return Listed(rows, listed.notes)


ADAPTERS: dict[str, Adapter] = {
    "elpv": Adapter(elpv_rows, "images CC BY-NC-SA 4.0, package code Apache-2.0", elpv_fetch),
    "mtd": Adapter(mtd_rows, "none stated; cite Huang, Qiu, Yuan (2020)"),
    "folder": Adapter(folder_rows, "the owner's", read=read_folder),
    "bsdata": Adapter(
        lambda root: bsdata_read(root).rows,
        "CC BY-SA 4.0; cite Schlagenhauf, Landwehr, Fleischer (2021)",
        read=bsdata_read,
    ),
    "kolektor_sdd": Adapter(
        lambda root: kolektor_read(root).rows,
        "CC BY-NC-SA 4.0; cite Tabernik, Šela, Skvarč, Skočaj (2019)",
        read=kolektor_read,
    ),
    "clips": Adapter(clips_rows, "the owner's", clips=True),
    "ucsd_ped2": Adapter(
        ucsd_ped2_rows,
        "none stated; cite Mahadevan, Li, Bhalodia, Vasconcelos (2010); shows people, tiny: personal data",
        clips=True,
    ),
    "cuhk_avenue": Adapter(
        cuhk_avenue_rows, "none stated; cite Lu, Shi, Jia (2013); shows people: personal data", clips=True
    ),
    "shanghaitech": Adapter(
        shanghaitech_rows, "none stated; cite Luo, Liu, Gao (2017); shows people: personal data", clips=True
    ),
    "collected": Adapter(collected_rows, "that of the data sets it was collected from"),
    **PUBLISHED,
}


def adapter(name: str) -> Adapter:
    """Raises DataError when there is no adapter of this name."""
    if name not in ADAPTERS:
        raise DataError(f"{name} is not an adapter; choose one of {', '.join(ADAPTERS)}")
    return ADAPTERS[name]


def listed(name: str, root: Path, naming: Naming = DEFAULT) -> Listed:
    """What the adapter *name* reads in the folder *root*, told in the log. Raises DataError or SettingsError."""
    kind = adapter(name)
    if kind.read is None:
        if naming != DEFAULT:
            raise SettingsError(f"adapter {name} knows its labels; good, defect and groups are for adapter folder")
        rows = kind.rows(root)
        _tell_counts(name, root, kind, rows)
        return Listed(rows)
    found = kind.read(root, naming)
    for level, line in note_lines(root.name, found.notes):
        log.log(level, "%s", line)
    return found


def _tell_counts(name: str, root: Path, kind: Adapter, rows: list[Row]) -> None:
    """Where counts are not as published: a part of the set is no fault, a whole one that differs may be."""
    found = counted(rows)
    other = [
        f"{n} {what} (published {kind.counts[what]})" for what, n in found.items() if kind.counts.get(what, n) != n
    ]
    part = found[GROUPS] < kind.counts.get(GROUPS, 0)
    if other:
        level = logging.INFO if part else logging.WARNING
        log.log(level, "%s: as %s it holds %s", root.name, name, ", ".join(other))
