"""How retrainings ended: each outcome is stored once under its verdict's id and never edited."""

import json
import logging
from dataclasses import dataclass
from typing import Literal

from components.core.settings import build, plain
from components.storage import Store

log = logging.getLogger("loupe")
OUTCOMES = "retrain/decisions"


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
    return build(Retrained, json.loads(store.get(key)), key) if store.exists(key) else None


def outcomes(store: Store, model: str) -> list[Retrained]:
    """All stored outcomes for a model, oldest first."""
    found = [build(Retrained, json.loads(store.get(key)), key) for key in store.keys(f"{OUTCOMES}/")]
    return sorted((outcome for outcome in found if outcome.model == model), key=lambda outcome: outcome.at)


def store_outcome(store: Store, outcome: Retrained) -> Retrained:
    """Store *outcome*, and say it."""
    store.put_new(key_of(outcome.verdict), json.dumps(plain(outcome), indent=1).encode())
    log.info("%s: %s (%s)", outcome.verdict, outcome.action, outcome.reasons[0])
    return outcome
