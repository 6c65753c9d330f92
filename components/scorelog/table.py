"""The shipped half of the score log: parquet objects below <table>/source=<source>/day=<day>/.

The name of an object begins with the times of its first and last record, so a reader opens only what it needs; objects
of older versions have none and are read with the first. A record that lies in two objects, as after a crash in the
middle of a compaction, is the same at the same place in the order, and read once; so is one that two services wrote of
one picture (``once``).
"""

import io
import logging
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.core.errors import DataError, StorageError
from components.core.filenames import hidden
from components.core.records import LABEL_COLUMNS, LOG_COLUMNS, PART_COLUMNS, of_today
from components.scorelog.once import Once
from components.storage import Store

log = logging.getLogger("loupe")
SCORES, LABELS, PARTS = "scores", "labels", "parts"
SHADOW = "shadow"  # what a challenger says of pictures that the champion has answered; of no line
COLUMNS = {SCORES: LOG_COLUMNS, LABELS: LABEL_COLUMNS, PARTS: PART_COLUMNS, SHADOW: LOG_COLUMNS}
ENDING = ".parquet"
STAMP = re.compile(r"\d{6}(?:\.\d+)?")  # a time of day, 103005.25
TIMED = re.compile(rf"T({STAMP.pattern})-({STAMP.pattern})-")
LATEST = "~"  # behind every time
SOURCE, DAY = "source=", "day="
UNFIT = re.compile(r"[/\x00-\x1f\x7f\ud800-\udfff]")
TYPES = {
    "embedding": pa.list_(pa.float64()),
    "width": pa.int64(),
    "height": pa.int64(),
    "score": pa.float64(),
    "p_value": pa.float64(),
    "threshold": pa.float64(),
    "latency_ms": pa.float64(),
    "brightness": pa.float64(),
    "contrast": pa.float64(),
    "sharpness": pa.float64(),
}
Record = dict[str, Any]  # a row of one of COLUMNS


def _schema(table: str) -> pa.Schema:
    return pa.schema([(name, TYPES.get(name, pa.string())) for name in COLUMNS[table]])


def partition(table: str, record: Record) -> str:
    """The folder of a record: its source and the day (UTC) of its time stamp."""
    source, day = str(record["source"]), str(record["labelled_at" if table == LABELS else "scored_at"])[:10]
    if not source or UNFIT.search(source):
        raise DataError(f"source {source!r}: cannot name a folder of the score log; use printable letters without /")
    return f"{table}/source={source}/day={day}/"


def check(table: str, record: Record) -> None:
    """Raises DataError, or what pyarrow raises, when *record* cannot be written."""
    partition(table, record)
    _rows(table, [record])


def write(store: Store, table: str, name: str, records: Sequence[Record]) -> list[str]:
    """Write the segment *name*: one object per partition. Writing it again changes nothing."""
    parts: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        parts[partition(table, record)].append(record)
    keys = []
    for folder, rows in sorted(parts.items()):
        keys.append(f"{folder}{titled(rows, name)}")
        store.put(keys[-1], encoded(table, rows))
    return keys


def titled(rows: Sequence[Record], name: str) -> str:
    """The name of the object *name* with these rows: the times of the first and the last before it."""
    times = sorted(stamp(row) for row in rows)
    return f"T{times[0]}-{times[-1]}-{name}{ENDING}" if all(map(STAMP.fullmatch, times)) else f"{name}{ENDING}"


def stamp(record: Record) -> str:
    """The time of day of a record, ordered as ``order`` orders the records of one day."""
    return order(record)[0][11:].removesuffix("+00:00").replace(":", "")


def _rows(table: str, rows: Sequence[Record]) -> pa.Table:
    records = [{k: row.get(k) for k in COLUMNS[table]} for row in map(of_today, rows)]
    return pa.Table.from_pylist(records, _schema(table))


def encoded(table: str, rows: Sequence[Record]) -> bytes:
    """The bytes of an object."""
    stream = io.BytesIO()
    pq.write_table(_rows(table, rows), stream)
    return stream.getvalue()


@contextmanager
def whole(key: str) -> Iterator[None]:
    """Say in our words that an object is no table."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, OverflowError, KeyError, TypeError) as error:
        said = (str(error).splitlines() or [""])[0][:100]
        raise DataError(f"{key}: is no table any more ({said}); bring it back from a copy, or remove it") from None


@dataclass(frozen=True)
class Part:
    """An object of a partition; its records lie between *first* and *last*."""

    key: str
    first: str
    last: str

    def load(self, store: Store) -> list[Record]:
        """Its rows. Raises DataError where it is no table any more, StorageError where it is gone."""
        content = store.get(self.key)
        with whole(self.key):
            rows = [of_today(row) for row in pq.read_table(io.BytesIO(content)).to_pylist()]
        if not all(isinstance(row.get("record_id"), str) and order(row)[0] != "None" for row in rows):
            raise DataError(f"{self.key}: has rows without id or time; bring it back from a copy, or remove it")
        return rows

    def read(self, store: Store) -> list[Record]:
        """The same; a damaged object is told and stops no other."""
        try:
            return self.load(store)
        except DataError as error:
            log.error("%s", error)
            return []


def parts(store: Store, folder: str) -> list[Part]:
    """The objects of a partition, without what a system or a person has left there."""
    keys = [key for key in store.keys(folder) if key.endswith(ENDING) and not hidden(key.removeprefix(folder))]
    found = [(key, TIMED.match(key.removeprefix(folder))) for key in keys]
    return [Part(key, said[1], said[2]) if said else Part(key, "", LATEST) for key, said in found]


def read_partition(store: Store, folder: str) -> list[Record]:
    """All records of one partition, each once, oldest first."""
    return list(oldest(store, folder))


def oldest(store: Store, folder: str, since: str = "", strict: bool = False) -> Iterator[Record]:
    """The records of a partition, oldest first; objects that end before the time of day *since* are not opened.

    *strict*: raises DataError at a damaged object, which is else told and left out.
    """
    return _read(store, folder, since, False, strict)


def newest(store: Store, folder: str) -> Iterator[Record]:
    """The records of a partition, newest first; an object is opened when its last record may be the next."""
    return _read(store, folder, "", True)


def _read(store: Store, folder: str, since: str, backwards: bool, strict: bool = False) -> Iterator[Record]:
    """Begun anew behind the last record where an object that was listed has just been compacted away."""
    after: tuple[str, str] | None = None
    once = Once(folder.startswith(f"{LABELS}/"))
    for attempt in range(3):
        try:
            for record in _merged(store, [p for p in parts(store, folder) if p.last >= since], backwards, strict):
                place = order(record)
                if after is None or (place < after if backwards else place > after):
                    after = place
                    if once.fresh(record):
                        yield record
            return
        except StorageError:
            if attempt == 2:
                raise


def _merged(store: Store, left: list[Part], backwards: bool, strict: bool = False) -> Iterator[Record]:
    """Records of several objects in order; one that lies in two of them comes twice in a row."""
    left.sort(key=lambda part: part.last if backwards else part.first, reverse=not backwards)
    rows: list[Record] = []  # the next one at the end
    while left or rows:
        while left and (not rows or _reaches(left[-1], stamp(rows[-1]), backwards)):
            part = left.pop()
            rows += part.load(store) if strict else part.read(store)
            rows.sort(key=order, reverse=not backwards)
        if rows:
            yield rows.pop()


def _reaches(part: Part, time: str, backwards: bool) -> bool:
    """Whether a record of *part* may stand before one of this time of day."""
    return part.last >= time if backwards else part.first <= time


def order(record: Record) -> tuple[str, str]:
    """Records stand in the order of their time, and of their id at the same time."""
    return str(record.get("scored_at") or record.get("labelled_at")), str(record["record_id"])


def sources(store: Store, table: str = SCORES) -> list[str]:
    return [name.removeprefix(SOURCE) for name in store.folders(f"{table}/") if name.startswith(SOURCE)]


def days(store: Store, table: str, source: str) -> list[str]:
    return [name.removeprefix(DAY) for name in store.folders(f"{table}/source={source}/") if name.startswith(DAY)]


def newest_first(store: Store, table: str, source: str, since: str = "", until: str = LATEST) -> Iterator[Record]:
    """Records backwards in time, from the day of *until* down to that of *since* (ISO times)."""
    once = Once(table == LABELS)
    for day in reversed(days(store, table, source)):
        if day < since[:10]:
            return
        if day <= until[:10]:
            once.turn()
            yield from filter(once.fresh, newest(store, f"{table}/source={source}/day={day}/"))


def oldest_first(store: Store, table: str, source: str, since: str = "") -> Iterator[Record]:
    """Records forwards in time, from *since* (ISO time), or a little before it, on."""
    once = Once(table == LABELS)
    for day in days(store, table, source):
        if day >= since[:10]:
            once.turn()
            begin = since[11:].removesuffix("+00:00").replace(":", "") if day == since[:10] else ""
            yield from filter(once.fresh, oldest(store, f"{table}/source={source}/day={day}/", begin))
