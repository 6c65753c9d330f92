"""The monitoring component: new windows of the score log -> stored verdicts."""

import json
import logging
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from components.core.artefacts import file_hash, mapping, values_hash
from components.decision.bundle import Manifest
from components.monitoring.bounds import bounds
from components.monitoring.columns import frame, read_reference, standardised
from components.monitoring.kept import (
    SENT,
    VERDICTS,
    find,
    keep,
    key_of,
    last_asked,
    last_number,
    latest,
    mark_sent,
    note_older,
    sent_key,
    unanswered,
    unsent,
    verdicts,
)
from components.monitoring.settings import MonitorSettings
from components.monitoring.verdict import Verdict, decide, drifted
from components.scorelog import table
from components.scorelog.table import Record
from components.scorelog.whose import scored_by
from components.storage import Store

if TYPE_CHECKING:  # Evidently takes seconds to load
    from components.monitoring.evidently import Comparison

__all__ = [
    "SENT",
    "VERDICTS",
    "find",
    "key_of",
    "mark_sent",
    "monitor",
    "sent_key",
    "unanswered",
    "unsent",
    "verdicts",
]

log = logging.getLogger("loupe")
LOOKED = "monitoring/looked"


def monitor(
    store: Store,
    bundle: Path,
    model: str,
    settings: MonitorSettings,
    at: datetime,
    sources: Sequence[str] | None = None,
) -> list[Verdict]:
    """Judge every window that has filled up since the last run; returns the new verdicts, which are stored."""
    watch = Watch(store, bundle, model, settings, at)
    return [verdict for source in sources or table.sources(store) for verdict in watch.source(source)]


@dataclass(frozen=True)
class Watch:
    """One run of the monitor: the champion's *bundle* against what the score log holds at the time *at*."""

    store: Store
    bundle: Path
    model: str
    settings: MonitorSettings
    at: datetime

    def source(self, source: str) -> Iterator[Verdict]:
        """The new verdicts on one source, each stored before the next window is looked at."""
        version, settings = Manifest.read(self.bundle).version, self.settings
        note_older(self.store)
        before = self._before(source, version)
        since = before[-1].window["last"] if before else ["", ""]
        window = deque(self._context(source, version, before), settings.window)
        waiting: list[str] = []  # times of the records that no verdict is about yet
        for record in self._fresh(source, version, since):
            window.append(record)
            waiting.append(record["scored_at"])
            if len(waiting) % settings.stride == 0 and len(window) >= settings.min_n:
                verdict = keep(self.store, self._verdict(list(window), before))
                log.info("%s: %s (%s)", verdict.id, verdict.action, verdict.reasons[0])
                before, waiting = [*before, verdict][-settings.memory - 1 :], []
                yield verdict
        self._note(source, version, waiting[0] if waiting else "")

    def _before(self, source: str, version: str) -> list[Verdict]:
        """The verdicts that the next one hangs on, oldest first: the last ones, and the last that asked to retrain.

        Those on records of the future are passed over: the clock was put back, and what came since is new.
        """
        newest, found = self._settled(), list[Verdict]()
        for verdict in latest(self.store, source, version, self.model):
            if verdict.window["last"][0] <= newest:
                found.append(verdict)
            if len(found) >= max(1, self.settings.memory):
                break
        asked = last_asked(self.store, source, version, self.model)
        earlier = [asked] if asked and found and asked.number < found[-1].number else []
        return [*earlier, *reversed(found)]

    def _context(self, source: str, version: str, before: Sequence[Verdict]) -> list[Record]:
        """The records of the last window, oldest first: the next ones overlap it."""
        if not before:
            return []
        first, last = (tuple(before[-1].window[end]) for end in ("first", "last"))
        found = table.newest_first(self.store, table.SCORES, source, first[0], last[0])
        mine = (r for r in found if table.order(r) <= last and self._mine(r, version))
        return list(islice(mine, int(before[-1].window["n"])))[::-1]

    def _fresh(self, source: str, version: str, since: Sequence[str]) -> Iterator[Record]:
        """Settled records of this model behind *since*, oldest first.

        What was looked through before, and held nothing of this model, is not read again but for the last
        ``late_days``: a line that was cut off ships its records later.
        """
        newest, start = self._settled(), max(since[0], self._looked(source, version))
        for record in table.oldest_first(self.store, table.SCORES, source, start):
            if record["scored_at"] > newest:
                return
            if table.order(record) > tuple(since) and self._mine(record, version):
                yield record

    def _settled(self) -> str:
        return (self.at - timedelta(seconds=self.settings.settle_seconds)).isoformat()

    def _late(self) -> str:
        return (self.at - timedelta(days=self.settings.late_days)).isoformat()

    def _mine(self, record: Record, version: str) -> bool:
        return scored_by(record, version, self.model)

    def _looked(self, source: str, version: str) -> str:
        key = self._noted_at(source, version)
        noted = str(mapping(self.store.get(key), key)["from"]) if self.store.exists(key) else ""
        return min(noted, self._late())  # the clock may have been put back since

    def _note(self, source: str, version: str, waiting: str) -> None:
        """Note from where on the next run looks: the first record that waits for a verdict, or some days ago."""
        start = min(waiting, self._late()) if waiting else self._late()
        self.store.put(self._noted_at(source, version), json.dumps({"from": start}).encode())

    def _noted_at(self, source: str, version: str) -> str:
        return f"{LOOKED}/{source}/{version}/{self.model}.json"

    def _verdict(self, window: list[Record], earlier: list[Verdict]) -> Verdict:
        """What the window comes to, with the report that shows why."""
        compared, limits = self._compared(window)
        values = compared.values()
        reasons = drifted(values, limits)
        action, said = decide(reasons, earlier, self.settings, self.at)
        first, last = window[0], window[-1]
        number = last_number(self.store, first["source"], first["model_version"]) + 1
        name = f"{first['source']}-{first['model_version']}-{number:05d}"
        return Verdict(
            action=action,
            id=name,
            source=first["source"],
            model=self.model,
            model_version=first["model_version"],
            number=number,
            flagged=bool(reasons),
            reasons=said,
            window={"n": len(window), "first": list(table.order(first)), "last": list(table.order(last))},
            columns={c: {"value": values[c], "limit": limits[c]} for c in limits},
            evidence=str(self._shown(compared, name if reasons else None, first["source"], action, said)),
            inputs={
                "reference": file_hash(self.bundle / "reference.parquet"),
                "window": values_hash([record["record_id"] for record in window]),
            },
            at=self.at.isoformat(),
        )

    def _compared(self, window: list[Record]) -> tuple["Comparison", dict[str, float]]:
        """The window beside the reference, and how far each column may stray at this length."""
        from components.monitoring.evidently import Comparison

        raw = read_reference(self.bundle)
        reference, current = standardised(raw, raw), standardised(frame(window), raw)
        limits = bounds(reference, len(window), self.settings).limits
        seen, tags = datetime.fromisoformat(window[-1]["scored_at"]), [window[0]["source"], window[0]["model_version"]]
        return Comparison(reference, current, limits, seen, tags), limits

    def _shown(self, compared: "Comparison", report: str | None, source: str, action: str, said: Sequence[str]) -> Path:
        """Add the comparison to the dashboard; where the report called *report* lies, or the dashboard without one."""
        root = Path(self.settings.workspace).parent
        saved = compared.save(root / "reports" / f"{report}.html", action, said) if report else root / "workspace"
        compared.show(Path(self.settings.workspace), f"{self.model}: {source}", action)
        return saved
