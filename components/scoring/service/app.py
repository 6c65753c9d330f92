"""The HTTP interface: scoring, identity, health, metrics. The review page's part is in ``review``."""

import asyncio
import base64
import hmac
import io
import logging
import os
import threading
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool

from components.decoding import Decoding, decode
from components.errors import DataError, LoupeError, RequestError, StorageError
from components.scoring.batch import judged
from components.scoring.filing import DEFAULT_SOURCE
from components.scoring.service import documents
from components.scoring.service.batcher import Batcher, Scored
from components.scoring.service.champion import Champion
from components.scoring.service.heat import overlay
from components.scoring.service.measures import Measures
from components.scoring.service.recorder import Recorder
from components.scoring.service.settings import ServiceSettings
from components.scoring.service.uploads import BoundedHeaders, Upload, checked_source, read_uploads
from components.scoring.shipper import image_key

log = logging.getLogger("loupe")
LIMIT = "service.max_pixels"
Clock = Callable[[], datetime]
Source = Annotated[str, Query(description="The line or camera.", examples=["line-1"], pattern=documents.SOURCE)]
HeatMap = Annotated[Literal["none", "overlay", "map"], Query(description="A PNG overlay or the raw map.")]


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Service:
    """What the routes share; kept on ``app.state.service``."""

    champion: Champion
    recorder: Recorder
    settings: ServiceSettings
    clock: Clock
    batcher: Batcher
    measures: Measures
    draining: bool = False

    @property
    def rules(self) -> Decoding:
        """How uploads are decoded: as the served model learned, and bounded by the service's own limit."""
        return replace(self.champion.served.bundle.decoding, max_pixels=self.settings.max_pixels)


def create_app(champion: Champion, recorder: Recorder, settings: ServiceSettings, clock: Clock = now) -> FastAPI:
    """The application; *clock* gives the time that records are stamped with."""
    service = Service(champion, recorder, settings, clock, Batcher(champion.current, settings), Measures())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        _start(service)
        yield
        await run_in_threadpool(_stop, service)

    app = FastAPI(title="Loupe", description=documents.DESCRIPTION, version="1", lifespan=lifespan,
                  docs_url=None, redoc_url=None)  # fmt: skip
    app.state.service = service
    app.add_middleware(BoundedHeaders)
    for kind in (LoupeError, StorageError):
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(Exception, _broken)
    _add_routes(app, service)
    from components.scoring.service.review import add_review

    add_review(app, service, allowed(settings))
    return app


def _start(service: Service) -> None:
    service.batcher.start()
    service.recorder.shipper.start()
    service.champion.watch(service.settings.reload_seconds)
    # Beside the answers: a store that hangs must not keep the line waiting.
    threading.Thread(target=_remember, args=(service,), name="memory", daemon=True).start()


def _remember(service: Service) -> None:
    try:
        service.recorder.load()
    except Exception as error:
        log.error("the review page starts empty: %s: %s", type(error).__name__, error)


def _stop(service: Service) -> None:
    service.draining = True
    service.champion.stop()
    service.batcher.stop(service.settings.drain_seconds)
    service.recorder.shipper.stop(service.settings.drain_seconds)


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, RequestError) else 422 if isinstance(error, DataError) else 503
    headers = {"Retry-After": "1"} if status == 503 else {}
    if status in (408, 413):
        headers["Connection"] = "close"  # the rest of the body is not wanted
    return JSONResponse({"detail": str(error)}, status, headers)


async def _broken(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(unexpected(error))}, 500)


def unexpected(error: Exception) -> RequestError:
    """What a client reads when something failed that nobody foresaw; the log has it, too."""
    log.error("a request failed: %s: %s", type(error).__name__, error, exc_info=error)
    said = f"the service failed on this request ({type(error).__name__}); the others go on: see its log"
    return RequestError(500, said)


def allowed(settings: ServiceSettings) -> Callable[[Request], None]:
    """The check of the bearer token, when the environment sets one."""
    token = os.environ.get(settings.token_variable, "")

    def check(request: Request) -> None:
        given = request.headers.get("authorization", "")
        if token and not hmac.compare_digest(given.encode("latin-1", "replace"), f"Bearer {token}".encode()):
            raise RequestError(401, "the bearer token is missing or wrong; send Authorization: Bearer TOKEN")

    return check


def _add_routes(app: FastAPI, service: Service) -> None:
    guard = [Depends(allowed(service.settings))]

    @app.post("/v1/score", dependencies=guard, **documents.SCORE)
    async def score(
        request: Request, source: Source = DEFAULT_SOURCE, heatmap: HeatMap = "none", group: str | None = None
    ) -> JSONResponse:
        """Score one or many images: raw score, p-value, decision; all in the score log before the answer leaves.

        *group* says what they show, where the model knows several; without it the overall calibration decides.
        """
        service.champion.served.bundle.require_group(group)
        uploads = await read_uploads(request, service.settings)
        return JSONResponse(await score_uploads(service, uploads, checked_source(source), heatmap, group))

    @app.get("/v1/models/current", dependencies=guard, responses=documents.MODEL_RESPONSES)
    async def current() -> dict[str, Any]:
        """The served model: its version, data and calibration."""
        return service.champion.identity()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz", responses={503: documents.error("The service shuts down or its queue is full.")})
    async def readyz() -> dict[str, Any]:
        """A model is loaded and there is room in the queue. An unreachable store is told and no reason to stop."""
        if service.draining or service.batcher.waiting >= service.settings.queue:
            raise RequestError(503, "not ready: shutting down or the queue is full; try again in a second")
        return {"status": "ready", "store": "waiting" if service.recorder.shipper.failing else "ok"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus text format."""
        return Response(service.measures.render(service), media_type="text/plain; version=0.0.4")


async def score_uploads(
    service: Service, uploads: list[Upload], source: str, heatmap: str, group: str | None = None
) -> dict[str, Any]:
    """Decode, score in micro-batches, record, answer. One bad image refuses the whole request and records nothing."""
    rules = service.rules
    try:
        pictures = [await run_in_threadpool(decode, u.content, u.name, rules, LIMIT) for u in uploads]
        scored = await asyncio.gather(*service.batcher.submit(pictures))
        records, results = await run_in_threadpool(_record, service, uploads, pictures, scored, source, heatmap, group)
    except LoupeError as error:
        service.measures.refused(error)
        raise
    except Exception as error:
        broken = unexpected(error)
        service.measures.refused(broken)
        raise broken from error
    service.measures.scored(records)
    served = service.champion.served
    return {"model": {"name": served.name, "version": served.version}, "results": results}


def _record(
    service: Service, uploads: list[Upload], pictures: list[np.ndarray], scored: list[Scored], source: str,
    heatmap: str, group: str | None,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:  # fmt: skip
    at = service.clock().isoformat()
    records, results = [], []
    for upload, pixels, one in zip(uploads, pictures, scored, strict=True):
        sha256 = service.recorder.keep_image(upload.content)
        record = {
            "record_id": uuid.uuid4().hex, "scored_at": at,
            **judged(one.bundle, pixels, one.score, one.embedding, group), "image_id": upload.name, "source": source,
            "latency_ms": one.latency_ms, "sha256": sha256, "image_uri": image_key(sha256),
        }  # fmt: skip
        records.append(record)
        results.append({k: record[k] for k in documents.RESULT} | _heat(pixels, one, heatmap))
    service.recorder.append(records)
    return records, results


def _heat(pixels: np.ndarray, one: Scored, heatmap: str) -> dict[str, str]:
    if heatmap == "overlay":
        return {"overlay_png": base64.b64encode(overlay(pixels, one.heat, one.bundle.calibration["map"])).decode()}
    if heatmap == "map":
        stream = io.BytesIO()
        np.save(stream, one.heat.astype(np.float32))
        return {"map_npy": base64.b64encode(stream.getvalue()).decode()}
    return {}


async def overlay_of(service: Service, record_id: str) -> bytes:
    """The heat map of a recent image under the present model, drawn over it; nothing is recorded."""
    content = await run_in_threadpool(service.recorder.image, record_id)
    pixels = await run_in_threadpool(decode, content, record_id, service.rules, LIMIT)
    (one,) = await asyncio.gather(*service.batcher.submit([pixels]))
    return await run_in_threadpool(overlay, pixels, one.heat, one.bundle.calibration["map"])
