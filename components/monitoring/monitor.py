"""The monitoring component: new windows of the score log -> stored verdicts."""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.core.artefacts import file_hash, values_hash
from components.core.errors import MonitorError
from components.core.settings import build, plain
from components.decision.bundle import Manifest
from components.monitoring.bounds import bounds
from components.monitoring.columns import frame, read_reference, standardised
from components.monitoring.settings import MonitorSettings
from components.monitoring.verdict import Verdict, decide, drifted
from components.scorelog import table
from components.scorelog.table import Record
from components.storage import Store

if TYPE_CHECKING:  # Evidently takes seconds to load
    from components.monitoring.evidently import Comparison

log = logging.getLogger("loupe")
VERDICTS, SENT = "monitoring/verdicts", "monitoring/sent"


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
        earlier = verdicts(self.store, source, version)
        since = earlier[-1].window["last"] if earlier else ["", ""]
        records = _records(self.store, source, version, since, settings, self.at)
        fresh = [i for i, record in enumerate(records) if table.order(record) > tuple(since)]
        start = fresh[0] if fresh else len(records)
        for end in range(start + settings.stride, len(records) + 1, settings.stride):
            window = records[max(0, end - settings.window) : end]
            if len(window) >= settings.min_n:
                verdict = self._verdict(window, earlier)
                self.store.put_new(key_of(verdict), json.dumps(plain(verdict), indent=1).encode())
                log.info("%s: %s (%s)", verdict.id, verdict.action, verdict.reasons[0])
                earlier.append(verdict)
                yield verdict

    def _verdict(self, window: list[Record], earlier: list[Verdict]) -> Verdict:
        """What the window comes to, with the report that shows why."""
        compared, limits = self._compared(window)
        values = compared.values()
        reasons = drifted(values, limits)
        action, said = decide(reasons, earlier, self.settings, self.at)
        first, last, number = window[0], window[-1], len(earlier) + 1
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
            evidence=str(self._shown(compared, name if reasons else None, first["source"])),
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

    def _shown(self, compared: "Comparison", report: str | None, source: str) -> Path:
        """Add the comparison to the dashboard; where the report called *report* lies, or the dashboard without one."""
        root = Path(self.settings.workspace).parent
        saved = compared.save(root / "reports" / f"{report}.html") if report else root / "workspace"
        compared.show(Path(self.settings.workspace), f"{self.model}: {source}")
        return saved


def _records(
    store: Store, source: str, version: str, since: Sequence[str], settings: MonitorSettings, at: datetime
) -> list[Record]:
    """Settled records of this model, oldest first: all new ones and a window's length before them."""
    newest = (at - timedelta(seconds=settings.settle_seconds)).isoformat()
    found, before = [], 0
    for record in table.newest_first(store, table.SCORES, source):
        if record["model_version"] != version or record["scored_at"] > newest:
            continue
        found.append(record)
        before += table.order(record) <= tuple(since)
        if before >= settings.window:
            break
    return found[::-1]


def key_of(verdict: Verdict) -> str:
    """Where a verdict is stored."""
    return f"{VERDICTS}/{verdict.source}/{verdict.model_version}/{verdict.number:05d}.json"


def verdicts(store: Store, source: str, version: str) -> list[Verdict]:
    """The stored verdicts on one source under one model, oldest first."""
    keys = store.keys(f"{VERDICTS}/{source}/{version}/")
    return [build(Verdict, json.loads(store.get(key)), key) for key in keys]


def find(store: Store, verdict_id: str) -> Verdict:
    """Raises MonitorError where a name is none of a verdict, and where there is no such verdict."""
    key = "/".join([VERDICTS, *verdict_id.rsplit("-", 2)]) + ".json"
    if verdict_id.count("-") < 2 or not store.exists(key):
        raise MonitorError(f"{verdict_id}: there is no such verdict; `loupe monitor NAME` prints those of a model")
    return build(Verdict, json.loads(store.get(key)), key)


def unsent(store: Store) -> list[Verdict]:
    """Verdicts that ask for retraining and whose event has not been seen by the server yet."""
    return [v for v in _asking(store) if not store.exists(sent_key(v))]


def unanswered(
    store: Store, settings: MonitorSettings, at: datetime, answered: Callable[[Verdict], bool]
) -> list[Verdict]:
    """Verdicts whose event arrived ``again_hours`` ago and was not *answered*: the retraining was cut off or failed."""
    found = []
    for verdict in _asking(store):
        if not store.exists(sent_key(verdict)) or answered(verdict):
            continue
        note = json.loads(store.get(sent_key(verdict)))
        if at - datetime.fromisoformat(note["at"]) < timedelta(hours=settings.again_hours):
            continue
        if _times(note) <= settings.again:
            found.append(verdict)
        else:
            log.warning(
                "%s: %d events and no decision; see the runs of the flow retrain, then `loupe retrain %s`",
                verdict.id,
                _times(note),
                verdict.id,
            )
    return found


def mark_sent(store: Store, verdict: Verdict, event: str, at: datetime) -> None:
    """Note that the event of a verdict has arrived, and how often by now."""
    key = sent_key(verdict)
    times = 1 + (_times(json.loads(store.get(key))) if store.exists(key) else 0)
    store.put(key, json.dumps({"event": event, "at": at.isoformat(), "times": times}).encode())


def _asking(store: Store) -> Iterator[Verdict]:
    for source in store.folders(f"{VERDICTS}/"):
        for version in store.folders(f"{VERDICTS}/{source}/"):
            yield from (v for v in verdicts(store, source, version) if v.action == "retrain")


def _times(note: dict[str, Any]) -> int:
    return int(note.get("times", 1))  # a note of an older version does not say


def sent_key(verdict: Verdict) -> str:
    """Where it is noted that the event of a verdict was sent."""
    return f"{SENT}/{verdict.id}.json"
