"""Columns of the shipped score log, for pages: read object by object and kept, since an object never changes."""

import io
import json
import threading
from collections import OrderedDict
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from components.core.errors import StorageError
from components.core.filenames import hidden
from components.scorelog import table
from components.storage import Store

Part = tuple[pa.Table, frozenset[str]]  # rows, and the names of the objects that they stand for


class Reader:
    """Some *columns* of the score records; at most *rows* of them stay in memory. Safe for several threads.

    Unlike ``table.newest_first`` it makes no Python object of a row, so that a page does not slow the line down.
    """

    def __init__(self, store: Store, columns: Sequence[str], rows: int) -> None:
        self.store, self.rows = store, rows
        self.schema = pa.schema([(name, table.TYPES.get(name, pa.string())) for name in columns])
        self._kept: OrderedDict[str, Part] = OrderedDict()
        self._lock = threading.Lock()

    def day(self, source: str, day: str) -> pa.Table:
        """All records of one source on one day (UTC), each once, in no order. Raises StorageError."""
        folder = f"{table.SCORES}/{table.SOURCE}{source}/{table.DAY}{day}/"
        for attempt in range(3):
            try:
                return self._joined(folder)
            except StorageError:  # an object listed a moment ago may just have been compacted away
                if attempt == 2:
                    raise
        raise AssertionError(folder)

    def _joined(self, folder: str) -> pa.Table:
        names = {key.removeprefix(folder): key for key in self.store.keys(folder) if key.endswith(table.ENDING)}
        parts = {name: self._part(key) for name, key in names.items() if not hidden(name)}
        replaced = frozenset().union(*(stands for _, stands in parts.values()))
        return pa.concat_tables([self.schema.empty_table(), *(p for n, (p, _) in parts.items() if n not in replaced)])

    def _part(self, key: str) -> Part:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        part = self._read(key)
        with self._lock:
            self._kept[key] = part
            while sum(len(rows) for rows, _ in self._kept.values()) > self.rows and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return part

    def _read(self, key: str) -> Part:
        opened = pq.ParquetFile(io.BytesIO(self.store.get(key)))
        stored = opened.schema_arrow
        found = opened.read(columns=[name for name in self.schema.names if name in stored.names])
        columns = [found[f.name].cast(f.type) if f.name in stored.names else _nulls(found, f) for f in self.schema]
        replaces = json.loads((stored.metadata or {}).get(table.REPLACES, b"[]"))
        return pa.Table.from_arrays(columns, schema=self.schema), frozenset(replaces)


def _nulls(rows: pa.Table, field: pa.Field) -> pa.Array:
    return pa.nulls(len(rows), field.type)
