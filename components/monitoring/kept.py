"""Verdicts in the object store, and what is asked of them: nothing here reads all that there ever were.

Verdicts on a source under a bundle are numbered without gaps, so the last is found by asking for a few. Those that ask
for retraining are noted twice, before they are stored: below ASKED for good, and below OPEN until they are answered.
"""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from components.core.artefacts import mapping
from components.core.errors import MonitorError
from components.core.settings import build, plain
from components.monitoring.settings import MonitorSettings
from components.monitoring.verdict import Verdict
from components.storage import Store

log = logging.getLogger("loupe")
VERDICTS, SENT = "monitoring/verdicts", "monitoring/sent"
ASKED, OPEN, NOTED = "monitoring/asked", "monitoring/open", "monitoring/noted"


def key_of(verdict: Verdict) -> str:
    """Where a verdict is stored."""
    return _key(verdict.source, verdict.model_version, verdict.number)


def _key(source: str, version: str, number: int) -> str:
    return f"{VERDICTS}/{source}/{version}/{number:05d}.json"


def _read(store: Store, key: str) -> Verdict:
    found = build(Verdict, mapping(store.get(key), key), key)
    if found.id != "-".join(key.removeprefix(f"{VERDICTS}/").removesuffix(".json").split("/")) or "/" in found.model:
        raise MonitorError(f"{key}: is a verdict by another name; look who writes into the store")
    return found


def last_number(store: Store, source: str, version: str) -> int:
    """The highest number of a verdict on *source* under the bundle *version*; 0 before there is one."""
    low, high = 0, 1
    while store.exists(_key(source, version, high)):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if store.exists(_key(source, version, middle)) else (low, middle)
    return low


def latest(store: Store, source: str, version: str, model: str, before: int | None = None) -> Iterator[Verdict]:
    """A model's verdicts on one source under one bundle, the newest first; those of a number below *before*."""
    for number in range((before or last_number(store, source, version) + 1) - 1, 0, -1):
        verdict = _read(store, _key(source, version, number))
        if verdict.model == model:  # the same bundle may be registered under two names
            yield verdict


def verdicts(store: Store, source: str, version: str) -> list[Verdict]:
    """All stored verdicts on one source under one bundle, oldest first."""
    return [_read(store, _key(source, version, n)) for n in range(1, last_number(store, source, version) + 1)]


def last_asked(store: Store, source: str, version: str, model: str) -> Verdict | None:
    """The newest of a model's verdicts on one source that asked for retraining."""
    for key in reversed(list(store.keys(f"{ASKED}/{source}/{version}/"))):
        found = _asking(store, _key(source, version, int(key.rpartition("/")[2])))
        if found and found.model == model:
            return found
    return None


def _asking(store: Store, key: str) -> Verdict | None:
    """The verdict of a note; None where it was never stored, or came to something else after a crash."""
    verdict = _read(store, key) if store.exists(key) else None
    return verdict if verdict and verdict.action == "retrain" else None


def keep(store: Store, verdict: Verdict) -> Verdict:
    """Store a verdict; returns it as it is stored.

    Of two monitors that judge one window at once the first one's word stands. A number that another model's verdict
    has taken is passed over.
    """
    while True:
        if verdict.action == "retrain":
            _note(store, verdict)
        if store.put_new(key_of(verdict), json.dumps(plain(verdict), indent=1).encode()):
            return verdict
        other = _read(store, key_of(verdict))
        if other.model == verdict.model:
            return other
        verdict = replace(verdict, number=verdict.number + 1, id=name_of(verdict, verdict.number + 1))


def name_of(verdict: Verdict, number: int) -> str:
    """The id of a verdict on the same source under the same bundle."""
    return f"{verdict.source}-{verdict.model_version}-{number:05d}"


def _note(store: Store, verdict: Verdict) -> None:
    for key in (f"{ASKED}/{verdict.source}/{verdict.model_version}/{verdict.number:08d}", f"{OPEN}/{verdict.id}"):
        store.put(key, key_of(verdict).encode())


def note_older(store: Store) -> None:
    """Note, once, the verdicts that older versions stored: they kept none of what asks for retraining."""
    if store.exists(NOTED):
        return
    for source in store.folders(f"{VERDICTS}/"):
        for version in store.folders(f"{VERDICTS}/{source}/"):
            for verdict in verdicts(store, source, version):
                if verdict.action == "retrain":
                    _note(store, verdict)
    store.put(NOTED, b"")


def find(store: Store, verdict_id: str) -> Verdict:
    """Raises MonitorError where a name is none of a verdict, and where there is no such verdict."""
    key = "/".join([VERDICTS, *verdict_id.rsplit("-", 2)]) + ".json"
    if verdict_id.count("-") < 2 or not store.exists(key):
        raise MonitorError(f"{verdict_id}: there is no such verdict; `loupe monitor NAME` prints those of a model")
    return _read(store, key)


def open_verdicts(store: Store) -> list[Verdict]:
    """Verdicts that ask for retraining and were not answered yet, as far as ``close`` was told."""
    note_older(store)
    found = [_asking(store, store.get(key).decode()) for key in store.keys(f"{OPEN}/")]
    return [verdict for verdict in found if verdict]


def close(store: Store, verdict: Verdict) -> None:
    """A verdict is answered: nobody needs to ask for it any more."""
    store.delete(f"{OPEN}/{verdict.id}")


def unsent(store: Store) -> list[Verdict]:
    """Verdicts that ask for retraining and whose event has not been seen by the server yet."""
    return [v for v in open_verdicts(store) if not store.exists(sent_key(v))]


def unanswered(
    store: Store, settings: MonitorSettings, at: datetime, answered: Callable[[Verdict], bool]
) -> list[Verdict]:
    """Verdicts whose event arrived ``again_hours`` ago and was not *answered*: the retraining was cut off or failed."""
    found = []
    for verdict in open_verdicts(store):
        if answered(verdict):
            close(store, verdict)
            continue
        if not store.exists(sent_key(verdict)):
            continue
        note = mapping(store.get(sent_key(verdict)), sent_key(verdict))
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
    times = 1 + (_times(mapping(store.get(key), key)) if store.exists(key) else 0)
    store.put(key, json.dumps({"event": event, "at": at.isoformat(), "times": times}).encode())


def _times(note: dict[str, Any]) -> int:
    return int(note.get("times", 1))  # a note of an older version does not say


def sent_key(verdict: Verdict) -> str:
    """Where it is noted that the event of a verdict was sent."""
    return f"{SENT}/{verdict.id}.json"
