"""How the score log stays small enough to be read: past days are joined into few objects, and old ones may go."""

import hashlib
import io
import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import pairwise

import pyarrow.parquet as pq

from components.core.errors import DataError
from components.core.filenames import hidden
from components.scorelog import table
from components.scorelog.settings import ScoreLogSettings
from components.scorelog.shipper import clip_key, image_key
from components.scorelog.table import ENDING, LABELS, PARTS, SCORES, SHADOW, Part, Record
from components.storage import Store

log = logging.getLogger("loupe")
COMPACT = "compact-"
DEFAULT = ScoreLogSettings()


def tidy(store: Store, at: datetime, settings: ScoreLogSettings = DEFAULT) -> tuple[int, int]:
    """Join the objects of past days and remove what is older than *settings* keep: objects joined, objects removed."""
    gone = 0 if settings.keep_days is None else forget(store, at - timedelta(days=settings.keep_days))
    joined = sum(
        compact(store, name, source, at, settings.rows)
        for name in table.COLUMNS
        for source in table.sources(store, name)
    )
    return joined, gone


def compact(store: Store, name: str, source: str, before: datetime, rows: int = DEFAULT.rows) -> int:
    """Join the objects of every day before *before* into ones of *rows* records; returns how many objects went.

    A crash anywhere in here leaves records in two objects, which a reader counts once and the next run clears up.
    """
    return sum(
        _compact_partition(store, name, f"{name}/source={source}/day={day}/", rows)
        for day in table.days(store, name, source)
        if day < before.date().isoformat()
    )


def _compact_partition(store: Store, name: str, folder: str, rows: int) -> int:
    found = table.parts(store, folder)
    if _joined(found):
        return 0
    try:
        written = _rewritten(store, name, folder, rows, {part.key for part in found})
    except DataError as error:  # what is damaged may be mended by hand, and must not be cleared away
        log.error("not joined: %s", error)
        return 0
    gone = [part.key for part in found if part.key not in written]
    for key in gone:
        store.delete(key)
    return len(gone)


def _rewritten(store: Store, name: str, folder: str, rows: int, there: set[str]) -> set[str]:
    """Write the records of a partition as objects of *rows* each, but those *there*; returns all their keys."""
    written = set()
    for chunk in _chunks(table.oldest(store, folder, strict=True), rows):
        places = "".join("/".join(table.order(record)) for record in chunk)
        short = f"{COMPACT}{hashlib.sha256(places.encode()).hexdigest()[:24]}"
        written.add(key := folder + table.titled(chunk, short))
        if key not in there:
            store.put(key, table.encoded(name, chunk))
    return written


def _joined(found: list[Part]) -> bool:
    """Whether a partition is all of what a compaction wrote, once: one object, or ones that follow each other."""
    if len(found) == 1:
        return found[0].last != table.LATEST
    ordered = sorted(found, key=lambda part: (part.first, part.last))
    apart = all(later.first >= earlier.last for earlier, later in pairwise(ordered))
    return apart and all(f"-{COMPACT}" in part.key for part in found)


def _chunks(records: Iterator[Record], rows: int) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == rows:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def forget(store: Store, before: datetime) -> int:
    """Remove records and decisions on parts of days before *before*, and pictures and clips that nothing else names.

    An object that is compacted away meanwhile raises ObjectError before anything is removed: nobody knows its names.
    """
    scores, parts = _forget_scores(store, before), _older(store, PARTS, before)
    for key in parts:
        store.delete(key)
    return scores + len(parts)


def _forget_scores(store: Store, before: datetime) -> int:
    keys = [*_older(store, SCORES, before), *_older(store, SHADOW, before)]
    if not keys:
        return 0
    named = {sha for key in keys for sha in _pictures(store, key)}
    gone = set(keys)
    for key in (key for name in (SCORES, LABELS, SHADOW) for key in store.keys(f"{name}/")):
        if key not in gone and _ours(key):
            named -= _pictures(store, key)
    for sha in sorted(named):  # before the records: a crash here leaves the names of what is still to be removed
        store.delete(image_key(sha))
        store.delete(clip_key(sha))
    for key in keys:
        store.delete(key)
    log.info("score log: %d objects and %d pictures of before %s are gone", len(keys), len(named), before.date())
    return len(keys)


def _older(store: Store, name: str, before: datetime) -> list[str]:
    """The objects of a table that are of days before *before*."""
    old = [
        (source, day)
        for source in table.sources(store, name)
        for day in table.days(store, name, source)
        if day < before.date().isoformat()
    ]
    return [key for source, day in old for key in store.keys(f"{name}/source={source}/day={day}/") if _ours(key)]


def _ours(key: str) -> bool:
    return key.endswith(ENDING) and not any(hidden(part) for part in key.split("/"))


def _pictures(store: Store, key: str) -> set[str]:
    """The hashes of the pictures that an object names; only this column is decoded."""
    with table.whole(key):
        return set(pq.read_table(io.BytesIO(store.get(key)), columns=["sha256"])["sha256"].to_pylist())
