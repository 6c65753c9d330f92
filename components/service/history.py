"""What the pages see of the score log: the latest records at hand and the shipped ones behind them, filtered."""

import contextlib
import functools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from components.core.errors import RequestError, StorageError
from components.core.records import TRACE_COLUMNS
from components.scorelog import table
from components.scorelog.once import KEYED
from components.scorelog.reading import Reader
from components.scorelog.table import Record
from components.service.recorder import Recorder

WHOSE = ("registered", "model_version", "dataset")  # what tells whose a record is
FIELDS = (
    "record_id", "scored_at", "source", "image_id", "dataset", "group", "score", "p_value", "decision", "threshold",
    "model", "model_version", "width", "height", "brightness", "contrast", "sharpness", "sha256", "image_uri",
    "registered", "regions", *TRACE_COLUMNS,
)  # fmt: skip
SECONDS = 3.0  # how long one request may look back; the next one goes on where it ended
KEPT = 500_000  # rows in memory, about 150 MB at most
Labelled = Literal["no", "yes", "defect", "false_alarm"]


@dataclass(frozen=True)
class Filter:
    """Which records are wanted; None leaves a question open. Times are ISO, *until* is not included."""

    decision: str | None = None
    source: str | None = None
    labelled: Labelled | None = None
    since: str | None = None
    until: str | None = None
    least: float | None = None
    most: float | None = None
    search: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Found:
    """Records newest first; *next* is where a following page begins, None at the end.

    *complete* is False where the store was out of reach, so that only the latest records were looked at.
    """

    records: list[Record]
    next: str | None
    complete: bool


class History:
    """Reads in the caller's thread: routes call it in a worker, never on the event loop."""

    def __init__(self, recorder: Recorder, rows: int = KEPT) -> None:
        self.recorder = recorder
        self.reader = Reader(recorder.store, FIELDS, rows)

    def page(self, wanted: Filter, before: str | None, limit: int) -> Found:
        """At most *limit* records that come before the place *before*, the ``next`` of an earlier page."""
        try:
            return self._page(wanted, before, limit, self.deep)
        except StorageError:
            return self._page(wanted, before, limit, False)

    def _page(self, wanted: Filter, before: str | None, limit: int, deep: bool) -> Found:
        rows: list[Record] = []
        until, more = time.monotonic() + SECONDS, None
        for day, held in self._days(wanted, before, deep):
            rows += self._chosen(held, wanted, before).slice(0, limit + 1 - len(rows)).to_pylist()
            if len(rows) > limit:
                rows.pop()
                more = f"{rows[-1]['scored_at']}|{rows[-1]['record_id']}"
                break
            if time.monotonic() > until:
                more = f"{day}|"
                break
        return Found([self._told(row) for row in rows], more, deep)

    def span(self, since: str, source: str | None = None) -> tuple[pa.Table, bool]:
        """All records from *since* on, and whether all of them could be read; the newest KEPT at most."""
        try:
            return self._span(Filter(source=source, since=since), self.deep)
        except StorageError:
            return self._span(Filter(source=source, since=since), False)

    def _span(self, wanted: Filter, deep: bool) -> tuple[pa.Table, bool]:
        found = [self.reader.schema.empty_table()]
        for _, held in self._days(wanted, None, deep):
            found.append(self._chosen(held, wanted, None))
            if sum(map(len, found)) > self.reader.rows:
                return pa.concat_tables(found).slice(0, self.reader.rows), False
        return pa.concat_tables(found), deep

    def newest(self, wanted: Filter, n: int) -> pa.Table:
        """The newest *n* that are wanted, or as many as can be found in SECONDS."""
        try:
            return self._newest(wanted, n, self.deep)
        except StorageError:
            return self._newest(wanted, n, False)

    def _newest(self, wanted: Filter, n: int, deep: bool) -> pa.Table:
        found, until = [self.reader.schema.empty_table()], time.monotonic() + SECONDS
        for _, held in self._days(wanted, None, deep):
            found.append(self._chosen(held, wanted, None))
            if sum(map(len, found)) >= n or time.monotonic() > until:
                break
        return pa.concat_tables(found).slice(0, n)

    @property
    def deep(self) -> bool:
        """Whether the store is to be asked: not while it is known to be out of reach, which takes a while to find."""
        return not self.recorder.shipper.failing

    def find(self, record_id: str) -> Record:
        """A record of any age, the newest days first. Raises RequestError."""
        until = time.monotonic() + SECONDS
        try:
            return self.recorder.find(record_id)
        except RequestError:
            for _, held in self._days(Filter(), None, self.deep):
                rows = held.filter(pc.equal(held["record_id"], record_id)).to_pylist()
                if rows:
                    return dict(rows[0])
                if time.monotonic() > until:
                    break
            raise

    def sources(self) -> list[str]:
        """All sources known, also those whose records are not shipped yet."""
        known = set(self._fresh()["source"].to_pylist())
        with contextlib.suppress(StorageError):
            known |= set(table.sources(self.recorder.store)) if self.deep else set()
        return sorted(known)

    def _fresh(self) -> pa.Table:
        """The records at hand; while the store is out of reach also those that wait on local disk for it."""
        records = self.recorder.latest()
        waiting = [] if self.deep else self.recorder.spools[table.SCORES].pending()
        records = list({record["record_id"]: record for record in (*records, *waiting)}.values())
        return pa.Table.from_pylist([{name: r.get(name) for name in FIELDS} for r in records], self.reader.schema)

    def _days(self, wanted: Filter, before: str | None, deep: bool) -> Iterator[tuple[str, pa.Table]]:
        """The records of each day, newest day first; what cannot be of the answer is not read."""
        fresh, stored = self._fresh(), self._stored(wanted) if deep else {}
        ids, dated = fresh["record_id"], pc.utf8_slice_codeunits(fresh["scored_at"], 0, 10)
        days = {*dated.to_pylist(), *(day for known in stored.values() for day in known)}
        last = min(text[:10] for text in (before, wanted.until, "9999") if text)
        seen = pa.array([], pa.string())
        for day in sorted((d for d in days if (wanted.since or "")[:10] <= d <= last), reverse=True):
            parts = [self.reader.day(source, day) for source, known in stored.items() if day in known]
            old = [part.filter(pc.invert(pc.is_in(part["record_id"], value_set=ids))) for part in parts]
            rows = pa.concat_tables([fresh.filter(pc.equal(dated, day)), *old])
            rows = rows.filter(pc.invert(pc.is_in(rows["record_id"], value_set=seen)))
            found = rows["record_id"].combine_chunks()
            seen = found.filter(pc.starts_with(found, KEYED))  # the same picture may be of the day before, too
            yield day, self._mine(rows)

    def _mine(self, rows: pa.Table) -> pa.Table:
        """Those of the served product: asked once for each kind of record, not for each record."""
        kinds = rows.group_by(list(WHOSE)).aggregate([]).to_pylist()
        others = [kind for kind in kinds if not self.recorder.mine(kind)]
        for kind in others:
            same = [pc.equal(rows[k], v) if v is not None else pc.is_null(rows[k]) for k, v in kind.items()]
            rows = rows.filter(pc.invert(functools.reduce(pc.and_, (pc.fill_null(one, False) for one in same))))
        return rows

    def _stored(self, wanted: Filter) -> dict[str, set[str]]:
        """The days that the store holds of each source."""
        store = self.recorder.store
        names = [wanted.source] if wanted.source else table.sources(store)
        return {name: set(table.days(store, table.SCORES, name)) for name in names}

    def _chosen(self, rows: pa.Table, wanted: Filter, before: str | None) -> pa.Table:
        """Those of *rows* that are wanted, newest first."""
        for test in self._tests(wanted, before):
            rows = rows.filter(test(rows))
        return rows.sort_by([("scored_at", "descending"), ("record_id", "descending")])

    def _tests(self, wanted: Filter, before: str | None) -> Iterator[Any]:
        for name, value in _equal(wanted):
            if value is not None:
                yield lambda t, name=name, value=value: pc.equal(t[name], value)
        if wanted.since:
            yield lambda t: pc.greater_equal(t["scored_at"], wanted.since)
        if wanted.until:
            yield lambda t: pc.less(t["scored_at"], wanted.until)
        if wanted.least is not None:
            yield lambda t: pc.greater_equal(t["score"], wanted.least)
        if wanted.most is not None:
            yield lambda t: pc.less_equal(t["score"], wanted.most)
        if before:
            yield lambda t: _before(t, before)
        if wanted.labelled:
            ids = pa.array(self.recorder.labelled(wanted.labelled), pa.string())
            inside = wanted.labelled != "no"
            yield lambda t: pc.equal(pc.is_in(t["record_id"], value_set=ids), inside)
        if wanted.search:
            yield lambda t: self._search(t, str(wanted.search))

    def _search(self, rows: pa.Table, text: str) -> pa.Array:
        """Where *text* is part of the picture's name, of what tells its part, of what reviewers wrote, or the id."""
        said = pa.array([*self.recorder.mentioned(text), text], pa.string())
        told = [pc.match_substring(rows[name], text, ignore_case=True) for name in ("image_id", *TRACE_COLUMNS)]
        named = functools.reduce(pc.or_, (pc.fill_null(one, False) for one in told))
        return pc.or_(named, pc.is_in(rows["record_id"], value_set=said))

    def _told(self, record: Record) -> Record:
        label = self.recorder.labels.get(record["record_id"], {})
        said = {k: label.get(k) or "" for k in ("reviewer", "tags", "labelled_at", "shapes")}
        return {**record, "label": label.get("label"), **said}


def _equal(wanted: Filter) -> tuple[tuple[str, str | None], ...]:
    return ("decision", wanted.decision), ("source", wanted.source), ("model_version", wanted.version)


def _before(rows: pa.Table, place: str) -> pa.Array:
    at, _, name = place.partition("|")
    same = pc.and_(pc.equal(rows["scored_at"], at), pc.less(rows["record_id"], name))
    return pc.or_(pc.less(rows["scored_at"], at), same)
