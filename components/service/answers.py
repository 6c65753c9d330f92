"""What the routes share, and how they answer: decode, score in micro-batches, record, reply."""

import asyncio
import base64
import hashlib
import io
import logging
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeVar

import numpy as np
from anyio import CapacityLimiter, to_thread
from starlette.concurrency import run_in_threadpool

from components.core.errors import LoupeError, RequestError
from components.decision.batch import entry
from components.pictures.clips import decode
from components.pictures.decoding import Decoding
from components.pictures.heat import overlay
from components.pictures.regions import of_text
from components.scorelog.once import identity
from components.scorelog.shipper import image_key
from components.scorelog.whose import NAME
from components.service import documents
from components.service.batcher import Batcher, Scored
from components.service.champion import Champion
from components.service.desk import Desk
from components.service.filing import DEFAULT_SOURCE
from components.service.history import History
from components.service.line.line import Line
from components.service.line.messages import Message
from components.service.measures import Measures
from components.service.recorder import Recorder
from components.service.settings import ServiceSettings
from components.service.shadow import Shadow
from components.service.trace import UNKNOWN, Trace
from components.service.uploads import Upload

log = logging.getLogger("loupe")
LIMIT = "service.max_pixels"
Clock = Callable[[], datetime]
T = TypeVar("T")
PAGE_THREADS = 3


@dataclass(frozen=True)
class Asked:
    """A request to score: its pictures, and what it tells of all of them.

    A picture that is handed over again under the same *key* is the same record, whichever service it is handed to.
    """

    uploads: list[Upload]
    source: str = DEFAULT_SOURCE
    heatmap: str = "none"
    group: str | None = None
    trace: Trace = field(default_factory=lambda: dict(UNKNOWN))
    key: str | None = None
    cycle: int | None = None  # of the handshake, where a controller waits for it


@dataclass
class Service:
    """What the routes share; kept on ``app.state.service``."""

    champion: Champion
    recorder: Recorder
    settings: ServiceSettings
    clock: Clock
    batcher: Batcher
    measures: Measures
    history: History
    desk: Desk = field(default_factory=Desk)
    shadow: Shadow | None = None
    line: Line = field(init=False)
    draining: bool = False
    # However many people look, and however slow the store is, no picture of the line waits for a thread of theirs.
    aside: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(PAGE_THREADS))

    def __post_init__(self) -> None:
        self.line = Line(self.champion, self.recorder, self.settings)

    async def read(self, task: Callable[..., T], *given: Any) -> T:
        """Run what a page asks for in a thread of the pages."""
        return await to_thread.run_sync(lambda: task(*given), limiter=self.aside)

    @property
    def rules(self) -> Decoding:
        """How uploads are decoded: as the served model learned, and bounded by the service's own limit."""
        return replace(self.champion.served.bundle.decoding, max_pixels=self.settings.max_pixels)


async def score_uploads(service: Service, asked: Asked) -> dict[str, Any]:
    """Decode, score in micro-batches, record, answer. One bad image refuses the whole request and records nothing."""
    try:
        pictures, scored = await _scored(service, [(u.content, u.name) for u in asked.uploads])
        records, results, parts = await run_in_threadpool(_done, service, asked, pictures, scored)
    except LoupeError as error:
        service.measures.refused(error)
        raise
    except Exception as error:
        broken = unexpected(error)
        service.measures.refused(broken)
        raise broken from error
    service.measures.scored(records)
    if service.shadow:
        service.shadow.offer(records, [upload.content for upload in asked.uploads])
    served = service.champion.served
    answer = {"model": {"name": served.name, "version": served.version}, "results": results}
    return answer | {"parts": parts} if service.line.views else answer


def triggered(service: Service, asked: Asked) -> Asked:
    """*asked* with what the trigger that waits for it says: group, part and recipe, where the request does not."""
    found = service.line.arrives(asked.source, asked.trace)
    if found is None:
        return asked
    return replace(asked, group=asked.group or found.group, trace=found.trace, cycle=found.cycle)


async def _scored(service: Service, given: list[tuple[bytes, str]]) -> tuple[list[np.ndarray], list[Scored]]:
    """Pictures decoded, and what the model says of each; again where a reload came between the two.

    A model sees pictures by its own rules: its region of interest is not that of the one before.
    """
    while True:
        rules = service.rules
        pictures = [await run_in_threadpool(decode, content, name, rules, LIMIT) for content, name in given]
        scored = await asyncio.gather(*service.batcher.submit(pictures))
        if all(one.bundle.decoding.identity == rules.identity for one in scored):
            return pictures, list(scored)


def _done(
    service: Service, asked: Asked, pictures: list[np.ndarray], scored: list[Scored]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Message]]:
    """Records, answers and decisions on parts; the log has the first before a plant hears of them."""
    records, results = _record(service, asked, pictures, scored)
    return records, results, service.line.tell(records, asked.cycle)


def _record(
    service: Service, asked: Asked, pictures: list[np.ndarray], scored: list[Scored]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    at = service.clock().isoformat()
    records, results, fresh = [], [], []
    for number, (upload, pixels, one) in enumerate(zip(asked.uploads, pictures, scored, strict=True)):
        name = identity(asked.source, asked.key, number) if asked.key else uuid.uuid4().hex
        record = _again(service, name, upload) if asked.key else None
        if record is None:
            record = {"record_id": name, "scored_at": at, **_entry(service, asked, upload, pixels, one)}
            fresh.append(record)
        records.append(record)
        results.append(answered(record) | _heat(service, upload, pixels, one, asked.heatmap))
    if fresh:
        service.recorder.append(fresh)
    return records, results


def _again(service: Service, name: str, upload: Upload) -> dict[str, Any] | None:
    """The record of a picture that was handed over before. Raises RequestError where it was another one."""
    known = service.recorder.known(name)
    if known and known["sha256"] != hashlib.sha256(upload.content).hexdigest():
        raise RequestError(409, f"{upload.name}: its id was used for another picture; give each picture its own")
    return known


def _entry(service: Service, asked: Asked, upload: Upload, pixels: np.ndarray, one: Scored) -> dict[str, Any]:
    sha256 = service.recorder.keep_image(upload.content)
    return {
        **entry(one.bundle, pixels, one.score, one.embedding, asked.group, one.heat),
        "image_id": upload.name,
        "source": asked.source,
        "latency_ms": one.latency_ms,
        "sha256": sha256,
        "image_uri": image_key(sha256),
        NAME: service.champion.registered,
        **asked.trace,
    }


def answered(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the answer says of a record: its regions as a list, the rest as it is."""
    return {k: record.get(k) for k in documents.RESULT} | {"regions": of_text(record.get("regions"))}


def _heat(service: Service, upload: Upload, pixels: np.ndarray, one: Scored, heatmap: str) -> dict[str, str]:
    if heatmap == "overlay":
        return {"overlay_png": base64.b64encode(_overlay(service, upload.content, pixels, one)).decode()}
    if heatmap == "map":
        stream = io.BytesIO()
        np.save(stream, one.heat.astype(np.float32))
        return {"map_npy": base64.b64encode(stream.getvalue()).decode()}
    return {}


def _overlay(service: Service, content: bytes, pixels: np.ndarray, one: Scored) -> bytes:
    """The heat of *one* over the whole picture, of which *pixels* shows the region of interest."""
    rules = one.bundle.decoding
    limit = service.settings.max_pixels
    whole = pixels if rules.roi is None else decode(content, rules=replace(rules.whole, max_pixels=limit))
    return overlay(whole, one.heat, one.bundle.calibration.scale, rules.roi)


async def overlay_of(service: Service, record_id: str) -> bytes:
    """The heat map of a recorded image under the present model, drawn over it; nothing is recorded."""
    record = await service.read(service.history.find, record_id)
    content = await service.read(service.recorder.image, record)
    (pixels,), (one,) = await _scored(service, [(content, record_id)])
    return await run_in_threadpool(_overlay, service, content, pixels, one)


def unexpected(error: Exception) -> RequestError:
    """What a client reads when something failed that nobody foresaw; the log has it, too."""
    log.error("a request failed: %s: %s", type(error).__name__, error, exc_info=error)
    said = f"the service failed on this request ({type(error).__name__}); the others go on: see its log"
    return RequestError(500, said)
