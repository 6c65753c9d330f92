"""Splits fit / calibrate / test: deterministic, hashed, and the same picture never on two sides."""

import hashlib
import logging
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import networkx
import pandas as pd

from components.artefacts import recorded, values_hash, write_json
from components.datasets.duplicates import near_duplicates
from components.errors import DataError
from components.records import SPLIT_COLUMNS

log = logging.getLogger("loupe")


@dataclass(frozen=True)
class SplitSettings:
    """*calibrate_share* of the training normals is held out; the thresholds say what counts as the same picture."""

    groups: tuple[str, ...] | None = None
    calibrate_share: float = 0.2
    hash_distance: int = 10  # bits of 64 in which perceptual hashes may differ to be compared on pixels
    detail: float = 0.975  # correlation of the fine detail from which on it is the same picture
    difference: float = 1.8  # or: RMS in grey levels up to which it is; docs/data.md shows what both tell apart


def split(validated: Path, data: Path, out: Path, settings: SplitSettings) -> Path:
    """Write out/split.parquet (records.SPLIT_COLUMNS) and split.json. Raises DataError when a group is unknown."""
    table = _chosen(pd.read_parquet(validated / "clean.parquet"), settings, validated)
    with recorded(out, "split", settings, {"validated": validated / "clean.parquet"}) as scratch:
        paths = [data / i for i in table["image_id"]]
        pairs = near_duplicates(paths, list(table["phash"]), settings.hash_distance, settings.detail,
                                settings.difference)  # fmt: skip
        table["split"] = [_side(row, settings) for row in table.itertuples()]
        table["note"] = None
        for cluster in _clusters(pairs):
            _keep_together(table, sorted(cluster))
        table[list(SPLIT_COLUMNS)].to_parquet(scratch / "split.parquet", index=False)
        write_json(scratch / "split.json", _summary(table, pairs))
    log.info("%s: %s, %d near-duplicate pairs", out, dict(Counter(table["split"])), len(pairs))
    return out


def _chosen(table: pd.DataFrame, settings: SplitSettings, validated: Path) -> pd.DataFrame:
    missing = set(settings.groups or ()) - set(table["group"])
    if missing:
        raise DataError(f"{validated}: no group {', '.join(sorted(missing))}; known are {sorted(set(table['group']))}")
    kept = table if settings.groups is None else table[table["group"].isin(settings.groups)]
    return kept.reset_index(drop=True).drop(columns="problem")


def _side(row, settings: SplitSettings) -> str:  # type: ignore[no-untyped-def]
    if row.role == "test":
        return "test"
    name = Path(row.image_id).name
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") / 2**64
    return "calibrate" if share < settings.calibrate_share else "fit"


def _clusters(pairs: list[tuple[int, int, float]]) -> list[set[int]]:
    graph = networkx.Graph((i, j) for i, j, _ in pairs)
    return [set(c) for c in networkx.connected_components(graph)]


def _keep_together(table: pd.DataFrame, rows: list[int]) -> None:
    """The test side keeps its protocol: copies on the training side leave it. Else all go where the first one is."""
    sides = table.loc[rows, "split"]
    tested = sides[sides == "test"].index
    for row in rows:
        if len(tested) and row not in tested:
            table.loc[row, ["split", "note"]] = ["excluded", f"near-duplicate of {table.at[tested[0], 'image_id']}"]
        elif not len(tested):
            table.at[row, "split"] = sides.iloc[0]


def _summary(table: pd.DataFrame, pairs: list[tuple[int, int, float]]) -> dict[str, object]:
    counts = Counter(zip(table["group"], table["label"], table["split"], strict=True))
    names = table["image_id"]
    return {
        "counts": {"/".join(key): n for key, n in sorted(counts.items())},
        "near_duplicates": [[names[i], names[j], c] for i, j, c in pairs],
        "near_duplicate_pairs": len(pairs),
        "hash": values_hash(list(zip(table["sha256"], table["split"], strict=True))),
    }
