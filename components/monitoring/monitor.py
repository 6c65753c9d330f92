"""The monitoring component: new windows of the score log -> stored verdicts."""

import json
import logging
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from components.core.artefacts import file_hash, values_hash
from components.core.settings import build, plain
from components.decision.bundle import Manifest
from components.monitoring.bounds import bounds
from components.monitoring.columns import frame, read_reference, standardised
from components.monitoring.settings import MonitorSettings
from components.monitoring.verdict import Verdict, decide, drifted
from components.scorelog import table
from components.scorelog.table import Record
from components.storage import Store

log = logging.getLogger("loupe")
VERDICTS, SENT = "monitoring/verdicts", "monitoring/sent"
DECISIONS = "retrain/decisions"  # the answers, of components.retraining


def monitor(
    store: Store,
    bundle: Path,
    model: str,
    settings: MonitorSettings,
    at: datetime,
    sources: Sequence[str] | None = None,
) -> list[Verdict]:
    """Judge every window that has filled up since the last run; returns the new verdicts, which are stored."""
    return [v for s in sources or table.sources(store) for v in _monitor_source(store, bundle, model, s, settings, at)]


def _monitor_source(
    store: Store, bundle: Path, model: str, source: str, settings: MonitorSettings, at: datetime
) -> Iterator[Verdict]:
    version = Manifest.read(bundle).version
    earlier = verdicts(store, source, version)
    since = earlier[-1].window["last"] if earlier else ["", ""]
    records = _records(store, source, version, since, settings, at)
    fresh = [i for i, record in enumerate(records) if table.order(record) > tuple(since)]
    start = fresh[0] if fresh else len(records)
    for end in range(start + settings.stride, len(records) + 1, settings.stride):
        window = records[max(0, end - settings.window) : end]
        if len(window) >= settings.min_n:
            verdict = _judge(store, bundle, model, window, earlier, settings, at)
            earlier.append(verdict)
            yield verdict


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


def _judge(
    store: Store,
    bundle: Path,
    model: str,
    window: list[Record],
    earlier: list[Verdict],
    settings: MonitorSettings,
    at: datetime,
) -> Verdict:
    from components.monitoring.evidently import Comparison

    raw = read_reference(bundle)
    reference, current = standardised(raw, raw), standardised(frame(window), raw)
    limits = bounds(reference, len(window), settings).limits
    source, version, number = window[0]["source"], window[0]["model_version"], len(earlier) + 1
    name = f"{source}-{version}-{number:05d}"
    seen = datetime.fromisoformat(window[-1]["scored_at"])
    compared = Comparison(reference, current, limits, seen, [source, version])
    values = compared.values()
    reasons = drifted(values, limits)
    action, said = decide(reasons, earlier, settings, at)
    root = Path(settings.workspace).parent
    report = compared.save(root / "reports" / f"{name}.html") if reasons else root / "workspace"
    compared.show(Path(settings.workspace), f"{model}: {source}")
    verdict = Verdict(
        action,
        name,
        source,
        model,
        version,
        number,
        bool(reasons),
        said,
        {"n": len(window), "first": list(table.order(window[0])), "last": list(table.order(window[-1]))},
        {c: {"value": values[c], "limit": limits[c]} for c in limits},
        str(report),
        {"reference": file_hash(bundle / "reference.parquet"), "window": values_hash([r["record_id"] for r in window])},
        at.isoformat(),
    )
    store.put_new(_key(verdict), json.dumps(plain(verdict), indent=1).encode())
    log.info("%s: %s (%s)", name, action, said[0])
    return verdict


def _key(verdict: Verdict) -> str:
    return f"{VERDICTS}/{verdict.source}/{verdict.model_version}/{verdict.number:05d}.json"


def verdicts(store: Store, source: str, version: str) -> list[Verdict]:
    """The stored verdicts on one source under one model, oldest first."""
    keys = store.keys(f"{VERDICTS}/{source}/{version}/")
    return [build(Verdict, json.loads(store.get(key)), key) for key in keys]


def find(store: Store, verdict_id: str) -> Verdict:
    """Raises StorageError when there is no such verdict."""
    source, version, number = verdict_id.rsplit("-", 2)
    key = f"{VERDICTS}/{source}/{version}/{number}.json"
    return build(Verdict, json.loads(store.get(key)), key)


def unsent(store: Store) -> list[Verdict]:
    """Verdicts that ask for retraining and whose event has not been seen by the server yet."""
    return [v for v in _asking(store) if not store.exists(_sent_key(v))]


def unanswered(store: Store, settings: MonitorSettings, at: datetime) -> list[Verdict]:
    """Verdicts whose event arrived ``again_hours`` ago and led to no decision: the retraining was cut off or failed."""
    found = []
    for verdict in _asking(store):
        if not store.exists(_sent_key(verdict)) or store.exists(f"{DECISIONS}/{verdict.id}.json"):
            continue
        note = json.loads(store.get(_sent_key(verdict)))
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
    key = _sent_key(verdict)
    times = 1 + (_times(json.loads(store.get(key))) if store.exists(key) else 0)
    store.put(key, json.dumps({"event": event, "at": at.isoformat(), "times": times}).encode())


def _asking(store: Store) -> Iterator[Verdict]:
    for source in store.folders(f"{VERDICTS}/"):
        for version in store.folders(f"{VERDICTS}/{source}/"):
            yield from (v for v in verdicts(store, source, version) if v.action == "retrain")


def _times(note: dict[str, Any]) -> int:
    return int(note.get("times", 1))  # a note of an older version does not say


def _sent_key(verdict: Verdict) -> str:
    return f"{SENT}/{verdict.id}.json"
