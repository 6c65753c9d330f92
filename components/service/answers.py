"""What the routes share, and how they answer: decode, score in micro-batches, record, reply."""

import asyncio
import base64
import io
import logging
import uuid
from collections.abc import Callable
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
from components.scorelog.shipper import image_key
from components.scorelog.whose import NAME
from components.service import documents
from components.service.batcher import Batcher, Scored
from components.service.champion import Champion
from components.service.desk import Desk
from components.service.history import History
from components.service.measures import Measures
from components.service.recorder import Recorder
from components.service.settings import ServiceSettings
from components.service.shadow import Shadow
from components.service.uploads import Upload

log = logging.getLogger("loupe")
LIMIT = "service.max_pixels"
Clock = Callable[[], datetime]
T = TypeVar("T")
PAGE_THREADS = 3


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
    draining: bool = False
    # However many people look, and however slow the store is, no picture of the line waits for a thread of theirs.
    aside: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(PAGE_THREADS))

    async def read(self, task: Callable[..., T], *given: Any) -> T:
        """Run what a page asks for in a thread of the pages."""
        return await to_thread.run_sync(lambda: task(*given), limiter=self.aside)

    @property
    def rules(self) -> Decoding:
        """How uploads are decoded: as the served model learned, and bounded by the service's own limit."""
        return replace(self.champion.served.bundle.decoding, max_pixels=self.settings.max_pixels)


async def score_uploads(
    service: Service, uploads: list[Upload], source: str, heatmap: str, group: str | None = None
) -> dict[str, Any]:
    """Decode, score in micro-batches, record, answer. One bad image refuses the whole request and records nothing."""
    try:
        pictures, scored = await _scored(service, [(u.content, u.name) for u in uploads])
        records, results = await run_in_threadpool(_record, service, uploads, pictures, scored, source, heatmap, group)
    except LoupeError as error:
        service.measures.refused(error)
        raise
    except Exception as error:
        broken = unexpected(error)
        service.measures.refused(broken)
        raise broken from error
    service.measures.scored(records)
    if service.shadow:
        service.shadow.offer(records, [upload.content for upload in uploads])
    served = service.champion.served
    return {"model": {"name": served.name, "version": served.version}, "results": results}


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


def _record(
    service: Service,
    uploads: list[Upload],
    pictures: list[np.ndarray],
    scored: list[Scored],
    source: str,
    heatmap: str,
    group: str | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    at = service.clock().isoformat()
    records, results = [], []
    for upload, pixels, one in zip(uploads, pictures, scored, strict=True):
        sha256 = service.recorder.keep_image(upload.content)
        record = {
            "record_id": uuid.uuid4().hex,
            "scored_at": at,
            **entry(one.bundle, pixels, one.score, one.embedding, group),
            "image_id": upload.name,
            "source": source,
            "latency_ms": one.latency_ms,
            "sha256": sha256,
            "image_uri": image_key(sha256),
            NAME: service.champion.registered,
        }
        records.append(record)
        results.append({k: record[k] for k in documents.RESULT} | _heat(service, upload, pixels, one, heatmap))
    service.recorder.append(records)
    return records, results


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
