"""Alarms in an order in which like stands by like, so that a reviewer decides on a kind and not on each picture.

The score log has 16 numbers of every picture from the features of the model. Pictures are chained greedily: the next
one is the nearest, by the cosine of the angle at the mean of all, that has not been shown. Where even the nearest is
far, a new kind begins.
"""

import numpy as np
import pyarrow as pa

from components.scorelog.reading import Reader
from components.scorelog.table import Record
from components.service.history import Filter, History
from components.storage import Store

MOST = 400  # pictures of one order: the chain takes their square
KIND = 0.5  # cosine to the one before, below which a new kind begins
ROWS = 50_000  # embeddings in memory, about 10 MB


def chained(embeddings: np.ndarray) -> tuple[list[int], list[int]]:
    """The order of *embeddings* (N, D), first the one farthest from their mean, and the kind of each in that order."""
    if not len(embeddings):
        return [], []
    centred = embeddings - embeddings.mean(0)
    length = np.linalg.norm(centred, axis=1)
    unit = centred / np.maximum(length, 1e-12)[:, None]
    order, kinds, left = [int(length.argmax())], [0], np.ones(len(unit), bool)
    left[order[0]] = False
    while left.any():
        near = np.where(left, unit @ unit[order[-1]], -np.inf)
        order.append(int(near.argmax()))
        kinds.append(kinds[-1] + bool(near[order[-1]] < KIND))
        left[order[-1]] = False
    return order, kinds


class Likeness:
    """Orders what a filter finds; embeddings are read where they are asked for and some of them kept."""

    def __init__(self, store: Store, history: History) -> None:
        self.history, self.reader = history, Reader(store, ("record_id", "embedding"), ROWS)

    def page(self, wanted: Filter, limit: int) -> tuple[list[Record], bool]:
        """The newest *limit* records by likeness, each with its ``kind``, those without an embedding last; and whether
        the store could be asked."""
        found = self.history.page(wanted, None, min(limit, MOST))
        known = self._embeddings(found.records)
        told = [r for r in found.records if r["record_id"] in known]
        order, kinds = chained(np.array([known[r["record_id"]] for r in told], float))
        chain = [{**told[at], "kind": kind} for at, kind in zip(order, kinds, strict=True)]
        rest = [{**r, "kind": None} for r in found.records if r["record_id"] not in known]
        return [*chain, *rest], found.complete

    def _embeddings(self, records: list[Record]) -> dict[str, list[float]]:
        """By record; those of one length: a record of another kind of model has no place beside the others."""
        known = self.history.recorder.embeddings({str(r["record_id"]) for r in records})
        left = [r for r in records if r["record_id"] not in known]
        if left and self.history.deep:
            for source, day in sorted({(str(r["source"]), str(r["scored_at"])[:10]) for r in left}):
                known |= _read(self.reader.day(source, day), {str(r["record_id"]) for r in left})
        size = max((len(v) for v in known.values()), default=0)
        return {k: v for k, v in known.items() if len(v) == size}


def _read(rows: pa.Table, wanted: set[str]) -> dict[str, list[float]]:
    import pyarrow.compute as pc

    rows = rows.filter(pc.is_in(rows["record_id"], value_set=pa.array(sorted(wanted), pa.string())))
    pairs = zip(rows["record_id"].to_pylist(), rows["embedding"].to_pylist(), strict=True)
    return {name: values for name, values in pairs if values}
