"""Splits fit / calibrate / test: deterministic, hashed, and the same picture never on two sides."""

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd

from components.core.artefacts import recorded, values_hash, write_json
from components.core.errors import DataError, SettingsError
from components.core.records import SPLIT_COLUMNS
from components.datasets.blocks import clip_sides, equal_files
from components.datasets.copies import copied, leave_out, told
from components.datasets.duplicates import Pictures, find_copies
from components.datasets.loading import DECODING, hand_on, read_decoding, read_split
from components.datasets.oneclass import one_class
from components.datasets.settings import SplitSettings
from components.datasets.shift import shifts
from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.masks import SEPARATOR, is_known, load, mask_paths

log = logging.getLogger("loupe")


def split(validated: Path, data: Path, out: Path, settings: SplitSettings) -> Path:
    """Write out/split.parquet (records.SPLIT_COLUMNS) and split.json. Raises DataError when a group is unknown."""
    table = _chosen(pd.read_parquet(validated / "clean.parquet"), settings, validated)
    with recorded(out, "split", settings, {"validated": validated / "clean.parquet"}) as scratch:
        hand_on(validated, scratch)
        rules = read_decoding(validated)
        if rules.stride and settings.labelled:
            raise SettingsError(f"{validated}: frames of one anomaly are near copies, none may move: split.labelled 0")
        if rules.stride:
            copies = equal_files(table)
            table["split"], table["note"] = clip_sides(table, settings.calibrate_share, share_of)
        else:
            copies = find_copies(_pictures(table, data, rules.whole), settings.likeness)
            table["split"] = [_side(row, settings) for row in table.itertuples()]
            table["note"] = None
        leave_out(table, copies)
        _move_labelled(table, data, settings.labelled, copied(copies), rules)
        table[list(SPLIT_COLUMNS)].to_parquet(scratch / "split.parquet", index=False)
        shifted, found = shifts(table), told(table, copies)
        write_json(scratch / "split.json", {**_summary(table), "copies": found, "shifted": shifted})
    log.info("%s: %s", out, dict(Counter(table["split"])))
    for line in found["said"]:
        log.warning("%s", line)
    for line in shifted:
        log.warning("%s; figures of the test split tell of that too: take both in the same way", line)
    return out


def join(members: Mapping[str, tuple[Path, Path]], out: Path, name: str) -> Path:
    """Write the union of splits, given by view as (split artefact, data folder below the common root), as view *name*.

    Every row keeps its side; its image id starts at the root and its group is its view. Raises DataError when a split
    is not there yet, or when two views bring the same picture.
    """
    for view, (path, _) in members.items():
        if not (path / "split.parquet").exists():
            raise DataError(f"{path}: not found; make the split of {view} before that of {name}")
    rules = _joined_rules({view: read_decoding(path) for view, (path, _) in members.items()}, out)
    inputs = {view: path / "split.parquet" for view, (path, _) in members.items()}
    with recorded(out, "split", {"views": list(members)}, inputs) as scratch:
        parts = [_member(read_split(path), folder, view) for view, (path, folder) in members.items()]
        table = pd.concat(parts, ignore_index=True).assign(dataset=name)
        _require_apart(table, out)
        table.reindex(columns=list(SPLIT_COLUMNS)).to_parquet(scratch / "split.parquet", index=False)
        write_json(scratch / "split.json", _summary(table))
        write_json(scratch / DECODING, rules.kept)
    log.info("%s: %s of %d views", out, dict(Counter(table["split"])), len(members))
    return out


def _joined_rules(rules: Mapping[str, Decoding], out: Path) -> Decoding:
    """One way of decoding for all views: 8-bit ones follow any white, two whites would need two models."""
    whites = {known.white: view for view, known in rules.items() if known.white is not None}
    if len(whites) > 1:
        said = ", ".join(f"{view} {white:g}" for white, view in whites.items())
        raise DataError(f"{out}: the views differ in the white of their deep files ({said}); set the same data.white")
    regions = {known.roi for known in rules.values()}
    if len(regions) > 1:
        said = ", ".join(f"{view} {'has one' if known.roi else 'none'}" for view, known in rules.items())
        raise DataError(f"{out}: the views differ in their region of interest ({said}); give all the same data.roi")
    tiles = {known.tiles for known in rules.values()}
    if max(tiles) > 1 and len(tiles) > 1:
        said = ", ".join(f"{view} {known.tiles}" for view, known in rules.items())
        raise DataError(f"{out}: the views differ in their tiles ({said}); set the same data.tiles")
    strides = {known.stride for known in rules.values()}
    if len(strides) > 1:
        said = ", ".join(f"{view} {known.stride}" for view, known in rules.items())
        raise DataError(f"{out}: the views differ in their frames, by data.stride, 0 for pictures ({said}); join alike")
    most = max(known.max_pixels for known in rules.values())
    return Decoding(
        next(iter(whites), None), most, regions.pop(), max(tiles), strides.pop()
    )  # squarish pictures are whole with 1, too


def _member(table: pd.DataFrame, folder: Path, view: str) -> pd.DataFrame:
    masks = [SEPARATOR.join((folder / m).as_posix() for m in mask_paths(ms)) or None for ms in table["mask"]]
    ids = [(folder / i).as_posix() for i in table["image_id"]]
    return table.assign(image_id=ids, mask=pd.Series(masks, table.index, object), group=view)


def _require_apart(table: pd.DataFrame, out: Path) -> None:
    """A picture may come once only: one that several views bring would count twice, or be learned and tested."""
    used = table[table["split"] != "excluded"]
    twice = used[used.groupby("sha256")["group"].transform("nunique") > 1]  # frames of one clip may be alike
    if len(twice):
        names = ", ".join(twice["image_id"].iloc[:2])
        raise DataError(
            f"{out}: {len(twice)} images are in more than one of the views, among them {names}; join views "
            "that share no images"
        )


def _chosen(table: pd.DataFrame, settings: SplitSettings, validated: Path) -> pd.DataFrame:
    missing = set(settings.groups or ()) - set(table["group"])
    if missing:
        raise DataError(f"{validated}: no group {', '.join(sorted(missing))}; known are {sorted(set(table['group']))}")
    kept = table if settings.groups is None else table[table["group"].isin(settings.groups)]
    return one_class(kept.reset_index(drop=True).drop(columns="problem"), settings, str(validated))


def _side(row, settings: SplitSettings) -> str:  # type: ignore[no-untyped-def]
    if row.role == "test":
        return "test"
    drawn = row.group if settings.together == "group" else row.image_id
    return "calibrate" if share_of(drawn) < settings.calibrate_share else "fit"


def share_of(image_id: str) -> float:
    """A number in [0, 1) from the file name alone; in folders below train/good from their names too.

    Cameras and parts with a folder each often repeat file names: by those alone all would go to one side.
    """
    folder, _, below = image_id.partition("/")
    name = below.partition("/")[2] if folder == "train" else Path(image_id).name
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _pictures(table: pd.DataFrame, data: Path, rules: Decoding) -> Pictures:
    sizes = table[["height", "width"]].to_numpy(int)
    return Pictures([data / name for name in table["image_id"]], sizes, list(table["phash"]), rules)


def _move_labelled(table: pd.DataFrame, data: Path, count: int, copied: set[int], rules: Decoding = DEFAULT) -> None:
    """Move *count* anomalous images from test to fit: defect types in turn, within a type by the hash of the file name.

    One that has a near-duplicate stays, whichever side the other is on: no picture of it may be left in the test.
    """
    table["mask_rule"] = table.get("mask_rule")  # None in what older versions validated
    known = np.array([is_known(*row) for row in zip(table["mask"], table["mask_rule"], strict=True)], bool)
    able = table[(table["split"] == "test") & (table["label"] == "anomalous") & known]
    ranked = sorted(set(able.index) - copied, key=lambda row: share_of(str(table.at[row, "image_id"])))
    turns: Counter[str] = Counter()
    place = {}
    for row in ranked:
        defect = str(table.at[row, "defect"])
        place[row] = (turns[defect], defect)
        turns[defect] += 1
    in_turn = sorted(ranked, key=place.__getitem__)
    marks = partial(load, data, size=256, rules=rules)  # none where the defect lies outside the region of interest
    marked = (row for row in in_turn if marks(table.at[row, "mask"], table.at[row, "mask_rule"]) is not None)
    chosen = list(islice(marked, count))
    if len(chosen) < count:
        raise DataError(f"{data}: {len(chosen)} anomalous test images have a mask and no copy; lower split.labelled")
    table.loc[chosen, ["split", "note"]] = ["fit", "labelled anomaly moved from test"]


def _summary(table: pd.DataFrame) -> dict[str, object]:
    counts = Counter(zip(table["group"], table["label"], table["split"], strict=True))
    return {
        "counts": {"/".join(key): n for key, n in sorted(counts.items())},
        "hash": values_hash(list(zip(table["sha256"], table["split"], strict=True))),
    }
