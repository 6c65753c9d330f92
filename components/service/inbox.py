"""Batch scoring: files below inbox/<source>/ of the object store become score records, each file exactly once.

A run first writes a plan: which files, their hashes, at what time. When they are scored, the records and failures are
added to it. Everything after that follows from the plan alone, so a run that died is finished by the next one with the
same records under the same key. A file is taken away last, and only if it is still the one that was scored.
One run at a time per store: the deployment's concurrency limit sees to it.
"""

import hashlib
import json
import logging
import uuid
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from components.core.artefacts import mapping
from components.core.errors import BundleError, DataError, ObjectError, StorageError
from components.core.progress import progress
from components.decision.batch import record
from components.decision.bundle import Bundle
from components.scorelog import table
from components.scorelog.shipper import image_key
from components.scorelog.whose import NAME
from components.service.attempts import Attempts, Failure, remember
from components.service.filing import INBOX, filed, kept_at, taken
from components.service.line.aside import Tell, nobody
from components.service.settings import InboxSettings
from components.service.trace import of_name
from components.storage import Store

log = logging.getLogger("loupe")
QUARANTINE, PLAN = "quarantine/", "inbox-plan.json"
DEFAULT = InboxSettings()
CHANGED = "has changed since the plan was made; a later run looks at it"
Plan = dict[str, Any]


@dataclass(frozen=True)
class Processed:
    """What a run did; *quarantined* and *failed* map a file to the reason.

    Failed files stay and are tried again by a later run. *waiting* counts them and those that are still being written.
    """

    scored: int
    quarantined: dict[str, str]
    failed: dict[str, str] = field(default_factory=dict)
    waiting: int = 0


def until_empty(step: Callable[[frozenset[str]], Processed]) -> Processed:
    """Call *step*, with the files that failed before, until it finds nothing more to do; returns all of it together."""
    scored, bad, failed = 0, dict[str, str](), dict[str, str]()
    while True:
        done = step(frozenset(failed))
        fresh = done.failed.keys() - failed.keys()
        scored, bad, failed = scored + done.scored, bad | done.quarantined, failed | done.failed
        if not (done.scored or done.quarantined or fresh):
            return Processed(scored, bad, failed, done.waiting)


def process(
    store: Store,
    bundle: Bundle,
    at: datetime,
    limit: int = 200,
    settings: InboxSettings = DEFAULT,
    skip: Collection[str] = (),
    name: str | None = None,
    tell: Tell = nobody,
) -> Processed:
    """Score up to *limit* files of the inbox; an interrupted plan comes first, with the time it was made at.

    *name* is the bundle's in the registry, *tell* hands the records on to the plant, some twice after a crash.
    Files in *skip* were tried in this run of a flow already and wait. Raises
    StorageError when the store fails and BundleError when the model does; then nothing is taken away.
    """
    plan, unread, waiting = _stored(store), dict[str, str](), 0
    resumed = plan is not None
    if plan is None:
        plan, unread, waiting = _planned(store, at, limit, settings, skip)
    if not plan["files"]:
        return Processed(0, {}, unread, waiting)
    if "records" not in plan:
        plan |= _score_all(store, bundle, plan, resumed, {NAME: name}, settings.names)
        store.put(PLAN, json.dumps(plan).encode())
    tell(plan["records"])  # before anything is taken away: a crash in here does all of it again
    done = _finish(store, plan, settings.attempts, unread, waiting)
    log.info("inbox: %d scored, %d quarantined, %d wait", done.scored, len(done.quarantined), done.waiting)
    return done


def _stored(store: Store) -> Plan | None:
    """The plan of a run that died; one that an older version has carried out is only cleared away."""
    if not store.exists(PLAN):
        return None
    plan = mapping(store.get(PLAN), PLAN)
    if not plan.get("done"):
        return plan
    _clear(store, plan["files"])
    return None


def _planned(
    store: Store, at: datetime, limit: int, settings: InboxSettings, skip: Collection[str]
) -> tuple[Plan, dict[str, str], int]:
    """A new plan, the files that cannot be read, and how many others are left to a later run."""
    there = [key for key in store.keys(INBOX) if taken(key)]
    found = store.settled((key for key in there if key not in skip), settings.settle_seconds, limit)
    files, unread = {}, {}
    for key in sorted(found):
        try:
            files[key] = hashlib.sha256(store.get(key)).hexdigest()
        except (ObjectError, MemoryError) as error:
            unread[key] = f"cannot be read ({error or type(error).__name__}); check its rights and its size"
            log.warning("%s: %s", key, unread[key])
    plan = {"id": uuid.uuid4().hex, "at": at.isoformat(), "files": files}
    if files:
        store.put_new(PLAN, json.dumps(plan).encode())
    return plan, unread, len(there) - len(files) if len(found) < limit else len(unread)


def _score_all(
    store: Store, bundle: Bundle, plan: Plan, resumed: bool, whose: dict[str, str | None], names: str
) -> Plan:
    """The outcome of a plan: records, failures with their number of attempts, and what is left alone for a reason."""
    attempts = Attempts(store, plan["id"], resumed)
    records, failed, left = list[dict[str, Any]](), dict[str, Failure](), dict[str, str]()
    try:
        for key, digest in progress(list(plan["files"].items()), "inbox"):
            if key in attempts.killers:
                failed[key] = attempts.failed(key, digest, None)
                continue
            attempts.begin(key)
            try:
                content = _unchanged(store, key, digest)
                if content is None:
                    left[key] = CHANGED
                    log.warning("%s: %s", key, CHANGED)
                else:
                    records.append(_scored(store, bundle, plan, key, content) | of_name(names, filed(key)[1]) | whose)
            except StorageError:
                raise
            except Exception as error:  # whatever one picture raises, the others are scored
                _require_model(bundle, error)
                failed[key] = attempts.failed(key, digest, error)
    finally:
        attempts.end()
    return {"records": records, "failed": failed, "left": left}


def _unchanged(store: Store, key: str, digest: str) -> bytes | None:
    try:
        content = store.get(key)
    except ObjectError:
        return None
    return content if hashlib.sha256(content).hexdigest() == digest else None


def _scored(store: Store, bundle: Bundle, plan: Plan, key: str, content: bytes) -> dict[str, Any]:
    (source, name), digest = filed(key), plan["files"][key]
    found = record(bundle, content, name, source)
    identity = hashlib.sha256(f"{plan['id']}/{key}".encode(errors="surrogateescape")).hexdigest()[:32]
    more = {"record_id": identity, "scored_at": plan["at"], "sha256": digest, "image_uri": image_key(digest)}
    table.check(table.SCORES, found | more)
    store.put_new(image_key(digest), content)
    return found | more


def _require_model(bundle: Bundle, error: Exception) -> None:
    """Raise BundleError when the model fails on any picture at all: then no file is to blame."""
    if isinstance(error, DataError):
        return
    try:
        bundle.answer(bundle.blank)
    except Exception as broken:
        raise BundleError(
            f"{bundle.folder}: cannot score any picture ({type(broken).__name__}: {broken}); the inbox waits: "
            "check memory and the bundle, then run again"
        ) from broken


def _finish(store: Store, plan: Plan, most: int, unread: dict[str, str], waiting: int) -> Processed:
    """Do what a scored plan says; after a crash anywhere in here the next run does all of it again, to the same end."""
    table.write(store, table.SCORES, f"inbox-{plan['id']}", plan["records"])
    given_up = {key: failure for key, failure in plan["failed"].items() if failure["attempts"] >= most}
    for key, failure in given_up.items():
        log.warning("%s: goes to quarantine after %d attempts: %s", key, failure["attempts"], failure["reason"])
        _quarantine(store, plan["id"], key, failure)
    again = {key: failure for key, failure in plan["failed"].items() if key not in given_up}
    for key, failure in again.items():
        log.warning("%s: attempt %d of %d: %s", key, failure["attempts"], most, failure["reason"])
    away = {key: digest for key, digest in plan["files"].items() if key not in again and key not in plan["left"]}
    remember(store, again, set(away))
    _clear(store, away)
    failed = {key: failure["reason"] for key, failure in again.items()} | plan["left"]
    bad = {key: failure["reason"] for key, failure in given_up.items()}
    return Processed(len(plan["records"]), bad, unread | failed, waiting + len(failed))


def _quarantine(store: Store, plan: str, key: str, failure: Failure) -> None:
    target = kept_at(f"{QUARANTINE}{plan}", key)
    content = _unchanged(store, key, failure["sha256"])
    if content is not None:  # else it lies there already, or is another file now
        store.put(target, content)
        store.put(f"{target}.reason.json", json.dumps({"file": key, **failure}, indent=1).encode())


def _clear(store: Store, files: dict[str, str]) -> None:
    """Take away what a finished plan has read; a file that came under the same name meanwhile stays."""
    for key, digest in files.items():
        store.remove_unchanged(key, digest)
    store.delete(PLAN)
