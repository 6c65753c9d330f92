"""How retrainings ended: each outcome is stored once under its verdict's id and never edited.

Its name is noted by model and day, and a refusal by the pool that was refused, before it is stored: the latest ones
are found without reading all that there ever were.
"""

import json
import logging
import socket
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from components.core.artefacts import mapping
from components.core.settings import build, plain
from components.storage import Store

log = logging.getLogger("loupe")
OUTCOMES, BY_DAY, REFUSED = "retrain/decisions", "retrain/days", "retrain/refused"
CLAIMS = "retrain/claims"
NOTED = "retrain/noted"  # there once the outcomes of older versions are noted


@dataclass(frozen=True)
class Retrained:
    """How the retraining for a *verdict* ended; *challenger* None: nothing was trained."""

    action: Literal["promote", "refuse"]
    verdict: str
    model: str
    source: str
    champion: str
    challenger: str | None
    reasons: tuple[str, ...]
    pool: str | None
    contamination: float | None
    data_version: str | None
    evidence: str
    at: str


def key_of(verdict: str) -> str:
    """Where the outcome for a verdict is stored."""
    return f"{OUTCOMES}/{verdict}.json"


def outcome_of(store: Store, verdict: str) -> Retrained | None:
    """The stored outcome for a verdict, None before there is one."""
    key = key_of(verdict)
    return build(Retrained, mapping(store.get(key), key), key) if store.exists(key) else None


def outcomes(store: Store, model: str) -> list[Retrained]:
    """All stored outcomes for a model, oldest first."""
    found = [build(Retrained, mapping(store.get(key), key), key) for key in store.keys(f"{OUTCOMES}/")]
    return sorted((outcome for outcome in found if outcome.model == model), key=lambda outcome: outcome.at)


def recent(store: Store, model: str, since: datetime) -> list[Retrained]:
    """The outcomes for a model from *since* on, oldest first."""
    _note_older(store)
    days = [day for day in store.folders(f"{BY_DAY}/{model}/") if day >= since.date().isoformat()]
    keys = [key for day in days for key in store.keys(f"{BY_DAY}/{model}/{day}/")]
    noted = [outcome_of(store, key.rpartition("/")[2]) for key in keys]
    found = [outcome for outcome in noted if outcome and datetime.fromisoformat(outcome.at) >= since]
    return sorted(found, key=lambda outcome: outcome.at)


def refusal_of(store: Store, model: str, pool: str) -> Retrained | None:
    """The refusal of these very candidates, None where they never were refused."""
    _note_older(store)
    key = f"{REFUSED}/{model}/{pool}"
    found = outcome_of(store, store.get(key).decode()) if store.exists(key) else None
    return found if found and found.action == "refuse" else None


def claim(store: Store, verdict: str, at: datetime, hours: float) -> str | None:
    """Take the retraining for a verdict; who has it, where another machine took it in the last *hours*.

    On one machine a lock keeps two apart; what a killed one had taken there is taken over at once.
    """
    key, host = f"{CLAIMS}/{verdict}", socket.gethostname()
    said = json.dumps({"host": host, "at": at.isoformat()}).encode()
    if store.put_new(key, said):
        return None
    known = mapping(store.get(key), key)
    if known["host"] != host and abs(at - datetime.fromisoformat(known["at"])) < timedelta(hours=hours):
        return f"{known['host']} since {known['at']}"
    store.put(key, said)
    return None


def _note(store: Store, outcome: Retrained) -> None:
    store.put(f"{BY_DAY}/{outcome.model}/{outcome.at[:10]}/{outcome.verdict}", b"")
    if outcome.action == "refuse" and outcome.pool:
        store.put(f"{REFUSED}/{outcome.model}/{outcome.pool}", outcome.verdict.encode())


def _note_older(store: Store) -> None:
    """Note, once, the outcomes that older versions stored without it."""
    if store.exists(NOTED):
        return
    for key in store.keys(f"{OUTCOMES}/"):
        _note(store, build(Retrained, mapping(store.get(key), key), key))
    store.put(NOTED, b"")


def store_outcome(store: Store, outcome: Retrained) -> Retrained:
    """Store *outcome*, and say it; returns the one that is stored, where another process was first."""
    _note(store, outcome)
    if not store.put_new(key_of(outcome.verdict), json.dumps(plain(outcome), indent=1).encode()):
        outcome = outcome_of(store, outcome.verdict) or outcome
    log.info("%s: %s (%s)", outcome.verdict, outcome.action, outcome.reasons[0])
    return outcome
