"""The monitor's columns in words that an operator knows: darker, softer, higher scores; not ``embedding_15``.

A phrase is a key of the pages' dictionaries with the values for its places, so that each reader gets it translated.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Phrase = dict[str, Any]
# What more and less of a column is called, in shares of the reference's mean.
SHARES = {
    "brightness": ("drift.brighter", "drift.darker"),
    "contrast": ("drift.more_contrast", "drift.less_contrast"),
    "sharpness": ("drift.sharper", "drift.softer"),
}
SCORE, LOOK = ("score", "p_value"), "embedding_"
LEAST = 0.005  # share below which the mean has not moved: it is the spread that has


@lru_cache(maxsize=4)
def reference_means(bundle: Path) -> Mapping[str, float]:
    """Means of the reference that the bundle carries; nothing where it has none."""
    path = bundle / "reference.parquet"
    return means(pq.read_table(path, columns=["score", *SHARES])) if path.exists() else {}


def means(rows: pa.Table) -> dict[str, float]:
    """Mean of the score and of each column of SHARES; nothing of no rows."""
    return {name: float(pc.mean(rows[name]).as_py()) for name in ("score", *SHARES)} if len(rows) else {}


def moved(columns: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The columns of a verdict that are beyond their limit, the farthest first."""
    far = {name: c["value"] / c["limit"] for name, c in columns.items() if c["value"] > c["limit"]}
    return sorted(far, key=lambda name: -far[name])


def phrases(flagged: list[str], now: Mapping[str, float], reference: Mapping[str, float]) -> list[Phrase]:
    """One phrase for each thing that has changed, in the order of *flagged*; score and p-value are one thing."""
    looks = [name for name in flagged if name.startswith(LOOK)]
    said: dict[str, Phrase] = {}
    for name in flagged:
        if name.startswith(LOOK):
            said.setdefault("look", {"key": "drift.look", "n": len(looks)})
        elif name in SCORE:
            said.setdefault("score", _score(now, reference))
        else:
            said[name] = _share(name, now, reference)
    return list(said.values())


def _share(name: str, now: Mapping[str, float], reference: Mapping[str, float]) -> Phrase:
    if not now or not reference.get(name):
        return {"key": f"drift.{name}"}
    change = now[name] / reference[name] - 1
    if abs(change) < LEAST:
        return {"key": f"drift.{name}_spread"}
    more, less = SHARES[name]
    return {"key": more if change > 0 else less, "percent": round(abs(change) * 100, 1 if abs(change) < 0.1 else None)}


def _score(now: Mapping[str, float], reference: Mapping[str, float]) -> Phrase:
    if not now or not reference:
        return {"key": "drift.score"}
    up = now["score"] >= reference["score"]
    return {"key": "drift.higher" if up else "drift.lower", "now": now["score"], "then": reference["score"]}
