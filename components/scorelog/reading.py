"""Columns of the shipped score log, for pages: read object by object and kept, since an object never changes."""

import io
import logging
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.errors import DataError, StorageError
from components.scorelog import table
from components.storage import Store

log = logging.getLogger("loupe")


class Reader:
    """Some *columns* of the score records; at most *rows* of them stay in memory. Safe for several threads.

    Unlike ``table.newest_first`` it makes no Python object of a row, so that a page does not slow the line down.
    """

    def __init__(self, store: Store, columns: Sequence[str], rows: int) -> None:
        self.store, self.rows = store, rows
        self.schema = pa.schema([(name, table.TYPES.get(name, pa.string())) for name in columns])
        self._kept: OrderedDict[str, pa.Table] = OrderedDict()
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
        """The rows of all objects; a record that was compacted meanwhile lies in two of them."""
        rows = pa.concat_tables(
            [self.schema.empty_table(), *(self._part(p.key) for p in table.parts(self.store, folder))]
        )
        _, first = np.unique(rows["record_id"].to_numpy(), return_index=True)
        return rows if len(first) == len(rows) else rows.take(np.sort(first))

    def _part(self, key: str) -> pa.Table:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        part = self._read(key)
        with self._lock:
            self._kept[key] = part
            while sum(map(len, self._kept.values())) > self.rows and len(self._kept) > 1:
                self._kept.popitem(last=False)
        return part

    def _read(self, key: str) -> pa.Table:
        content = self.store.get(key)
        try:
            with table.whole(key):
                opened = pq.ParquetFile(io.BytesIO(content))
                stored = set(opened.schema_arrow.names)
                found = opened.read(columns=[name for name in self.schema.names if name in stored])
        except DataError as error:  # told, and no reason to show nothing
            log.error("%s", error)
            return self.schema.empty_table()
        columns = [found[f.name].cast(f.type) if f.name in stored else _nulls(found, f) for f in self.schema]
        return pa.Table.from_arrays(columns, schema=self.schema)


def _nulls(rows: pa.Table, field: pa.Field) -> pa.Array:
    return pa.nulls(len(rows), field.type)
