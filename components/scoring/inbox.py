"""Batch scoring: files below inbox/<source>/ of the object store become score records, each file exactly once.

A run first writes a plan: which files, their hashes, at what time. Everything after that follows from the plan alone,
so a run that died is finished by the next one with the same records under the same key. Only then is the plan marked
done and are the files taken away. One run at a time per store: the deployment's concurrency limit sees to it.
"""

import hashlib
import json
import logging
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any

from components.errors import DataError
from components.progress import progress
from components.scoring import table
from components.scoring.batch import record
from components.scoring.bundle import Bundle
from components.scoring.shipper import image_key
from components.storage import Store

log = logging.getLogger("loupe")
INBOX, QUARANTINE, PLAN = "inbox/", "quarantine/", "inbox-plan.json"


@dataclass(frozen=True)
class Processed:
    """What a run did; *quarantined* maps a file to the reason."""

    scored: int
    quarantined: dict[str, str]


def process(store: Store, bundle: Bundle, at: datetime, limit: int = 200) -> Processed:
    """Score up to *limit* files of the inbox; an interrupted plan comes first, with the time it was made at."""
    plan = _plan(store, at, limit)
    if plan["done"]:
        _clear(store, plan)
        plan = _plan(store, at, limit)
    if not plan["files"]:
        return Processed(0, {})
    records, bad = _score_all(store, bundle, plan)
    table.write(store, table.SCORES, f"inbox-{plan['id']}", records)
    for key, reason in bad.items():
        _quarantine(store, plan["id"], key, reason)
    store.put(PLAN, json.dumps({**plan, "done": True}).encode())
    _clear(store, plan)
    log.info("inbox: %d scored, %d quarantined", len(records), len(bad))
    return Processed(len(records), bad)


def _plan(store: Store, at: datetime, limit: int) -> dict[str, Any]:
    if not store.exists(PLAN):
        keys = [key for _, key in zip(range(limit), store.keys(INBOX), strict=False)]
        files = {key: hashlib.sha256(store.get(key)).hexdigest() for key in keys}
        plan = {"id": uuid.uuid4().hex, "at": at.isoformat(), "files": files, "done": False}
        if not files:
            return plan
        store.put_new(PLAN, json.dumps(plan).encode())
    return dict(json.loads(store.get(PLAN)))


def _clear(store: Store, plan: dict[str, Any]) -> None:
    """Take away what a finished plan has read; a file that came under the same name meanwhile stays."""
    for key, digest in plan["files"].items():
        if store.exists(key) and hashlib.sha256(store.get(key)).hexdigest() == digest:
            store.delete(key)
    store.delete(PLAN)


def _score_all(store: Store, bundle: Bundle, plan: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Records, and the reasons of what could not be scored."""
    records, bad = [], {}
    for key, digest in progress(list(plan["files"].items()), "inbox"):
        content = store.get(key) if store.exists(key) else b""
        if hashlib.sha256(content).hexdigest() != digest:
            log.warning("%s: has changed since the plan was made; the next run looks at it", key)
            continue
        try:
            records.append(_scored(store, bundle, plan, key, content))
        except DataError as error:
            bad[key] = str(error)
    return records, bad


def _scored(store: Store, bundle: Bundle, plan: dict[str, Any], key: str, content: bytes) -> dict[str, Any]:
    name, digest = PurePosixPath(key), plan["files"][key]
    if len(name.parts) != 3:
        raise DataError(f"{key}: lies in no source's folder; put files below inbox/<source>/")
    found = record(bundle, content, name.name, name.parts[1])
    store.put_new(image_key(digest), content)
    identity = hashlib.sha256(f"{plan['id']}/{key}".encode()).hexdigest()[:32]
    return {**found, "record_id": identity, "scored_at": plan["at"], "sha256": digest, "image_uri": image_key(digest)}


def _quarantine(store: Store, plan: str, key: str, reason: str) -> None:
    target = f"{QUARANTINE}{plan}/{key.removeprefix(INBOX)}"
    store.put(target, store.get(key))
    store.put(f"{target}.reason.json", json.dumps({"file": key, "reason": reason}).encode())
