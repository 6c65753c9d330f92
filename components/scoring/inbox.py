"""Batch scoring: files below inbox/<source>/ of the object store become score records, each file exactly once.

A run first writes a plan: which files, their hashes, at what time. Everything after that follows from the plan alone,
so a run that died is finished by the next one with the same records under the same key. Only then are the files taken
away.
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
    if not plan["files"]:
        return Processed(0, {})
    records, bad = [], {}
    for key, digest in progress(list(plan["files"].items()), "inbox"):
        if not store.exists(key):  # another run has finished this plan
            return Processed(0, {})
        try:
            records.append(_scored(store, bundle, plan, key, digest))
        except DataError as error:
            bad[key] = str(error)
    table.write(store, table.SCORES, f"inbox-{plan['id']}", records)
    for key, reason in bad.items():
        _quarantine(store, plan["id"], key, reason)
    for key in plan["files"]:
        store.delete(key)
    store.delete(PLAN)
    log.info("inbox: %d scored, %d quarantined", len(records), len(bad))
    return Processed(len(records), bad)


def _plan(store: Store, at: datetime, limit: int) -> dict[str, Any]:
    if not store.exists(PLAN):
        keys = [key for _, key in zip(range(limit), store.keys(INBOX), strict=False)]
        files = {key: hashlib.sha256(store.get(key)).hexdigest() for key in keys}
        plan = {"id": uuid.uuid4().hex, "at": at.isoformat(), "files": files}
        if not files:
            return plan
        store.put_new(PLAN, json.dumps(plan).encode())
    return dict(json.loads(store.get(PLAN)))


def _scored(store: Store, bundle: Bundle, plan: dict[str, Any], key: str, digest: str) -> dict[str, Any]:
    content, name = store.get(key), PurePosixPath(key)
    if hashlib.sha256(content).hexdigest() != digest:
        raise DataError(f"{key}: changed while it was being read; put it into the inbox again when it is complete")
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
