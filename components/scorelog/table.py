"""The shipped half of the score log: parquet objects below <table>/source=<source>/day=<day>/.

A compacted object names, in its metadata, the segments it stands for; a reader leaves those out. So a crash between
writing it and deleting them, or a segment that is shipped once more afterwards, duplicates nothing.
"""

import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.core.errors import DataError, StorageError
from components.core.filenames import hidden
from components.core.records import LABEL_COLUMNS, LOG_COLUMNS, of_today
from components.storage import Store

SCORES, LABELS = "scores", "labels"
COLUMNS = {SCORES: LOG_COLUMNS, LABELS: LABEL_COLUMNS}
REPLACES = b"loupe.replaces"
COMPACT, ENDING = "compact-", ".parquet"
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
Record = dict[str, Any]  # a row, of LOG_COLUMNS or LABEL_COLUMNS


def _schema(table: str) -> pa.Schema:
    return pa.schema([(name, TYPES.get(name, pa.string())) for name in COLUMNS[table]])


def partition(table: str, record: Record) -> str:
    """The folder of a record: its source and the day (UTC) of its time stamp."""
    source, day = str(record["source"]), str(record["scored_at" if table == SCORES else "labelled_at"])[:10]
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
        store.put(f"{folder}{name}.parquet", _encode(table, rows))
        keys.append(f"{folder}{name}.parquet")
    return keys


def _rows(table: str, rows: Sequence[Record]) -> pa.Table:
    records = [{k: row.get(k) for k in COLUMNS[table]} for row in map(of_today, rows)]
    return pa.Table.from_pylist(records, _schema(table))


def _encode(table: str, rows: Sequence[Record], replaces: Sequence[str] = ()) -> bytes:
    content = _rows(table, rows)
    stream = io.BytesIO()
    pq.write_table(content.replace_schema_metadata({REPLACES: json.dumps(sorted(replaces)).encode()}), stream)
    return stream.getvalue()


def _load(store: Store, folder: str) -> tuple[dict[str, list[Record]], set[str]]:
    """Rows by object name, and the names that compacted objects stand for."""
    rows, replaced = {}, set()
    for key in store.keys(folder):
        if hidden(key.removeprefix(folder)) or not key.endswith(ENDING):
            continue  # what a system or a person has left there
        content = pq.read_table(io.BytesIO(store.get(key)))
        rows[key.removeprefix(folder)] = [of_today(row) for row in content.to_pylist()]
        replaced |= set(json.loads((content.schema.metadata or {}).get(REPLACES, b"[]")))
    return rows, replaced


def read_partition(store: Store, folder: str) -> list[Record]:
    """All records of one partition, each once, oldest first."""
    for attempt in range(3):
        try:
            rows, replaced = _load(store, folder)
            break
        except StorageError:  # an object listed a moment ago may just have been compacted away
            if attempt == 2:
                raise
    return sorted((r for name, part in rows.items() if name not in replaced for r in part), key=order)


def order(record: Record) -> tuple[str, str]:
    """Records stand in the order of their time, and of their id at the same time."""
    return str(record.get("scored_at") or record.get("labelled_at")), str(record["record_id"])


def sources(store: Store, table: str = SCORES) -> list[str]:
    return [name.removeprefix(SOURCE) for name in store.folders(f"{table}/") if name.startswith(SOURCE)]


def days(store: Store, table: str, source: str) -> list[str]:
    return [name.removeprefix(DAY) for name in store.folders(f"{table}/source={source}/") if name.startswith(DAY)]


def newest_first(store: Store, table: str, source: str, since: str = "") -> Iterator[Record]:
    """Records backwards in time, one partition at a time, down to the day of *since* (ISO time)."""
    for day in reversed(days(store, table, source)):
        if day < since[:10]:
            return
        yield from reversed(read_partition(store, f"{table}/source={source}/day={day}/"))


def compact(store: Store, table: str, source: str, before: datetime) -> int:
    """Join the objects of every day before *before* into one each; returns how many objects went."""
    removed = 0
    for day in days(store, table, source):
        if day < before.date().isoformat():
            removed += _compact_partition(store, table, f"{table}/source={source}/day={day}/")
    return removed


def _compact_partition(store: Store, table: str, folder: str) -> int:
    rows, replaced = _load(store, folder)
    live = [name for name in rows if name not in replaced]
    if len(live) > 1:
        gone = sorted(replaced | set(rows))
        name = f"{COMPACT}{hashlib.sha256(json.dumps(gone).encode()).hexdigest()[:24]}.parquet"
        records = sorted((r for n in live for r in rows[n]), key=order)
        store.put(folder + name, _encode(table, records, gone))
        live, replaced = [name], set(gone)
    stale = [name for name in rows if name in replaced]
    for name in stale:
        store.delete(folder + name)
    return len(stale)
