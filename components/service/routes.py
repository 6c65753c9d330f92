"""The HTTP interface: scoring, identity, health, metrics. The review page's part is in ``review``."""

import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.concurrency import run_in_threadpool

from components.core.errors import DataError, LoupeError, RequestError, StorageError
from components.service import documents
from components.service.answers import Asked, Clock, Service, score_uploads, triggered, unexpected
from components.service.batcher import Batcher
from components.service.champion import Champion
from components.service.desk import Desk
from components.service.filing import DEFAULT_SOURCE
from components.service.history import History
from components.service.measures import Measures
from components.service.operators import add_desk
from components.service.pages import add_pages
from components.service.recorder import Recorder
from components.service.review import add_review
from components.service.rights import Rights
from components.service.settings import ServiceSettings
from components.service.shadow import Shadow
from components.service.trace import Trace, checked_key, joined, of_headers
from components.service.uploads import BoundedHeaders, checked_source, read_uploads

log = logging.getLogger("loupe")
Source = Annotated[str, Query(description="The line or camera.", examples=["line-1"], pattern=documents.SOURCE)]
HeatMap = Annotated[Literal["none", "overlay", "map"], Query(description="A PNG overlay or the raw map.")]


Key = Annotated[str | None, Query(description="Of the picture; also as Idempotency-Key. The same one is one record.")]
TraceField = Annotated[str | None, Query(description="Which part the pictures show; kept in the record.")]


def now() -> datetime:
    return datetime.now(UTC)


def told_in_query(
    part: TraceField = None,
    lot: TraceField = None,
    recipe: TraceField = None,
    station: TraceField = None,
    operator: TraceField = None,
) -> Trace:
    """What the query of a request tells of the part."""
    return {"part": part, "lot": lot, "recipe": recipe, "station": station, "operator": operator}


def create_app(
    champion: Champion, recorder: Recorder, settings: ServiceSettings, clock: Clock = now, desk: Desk | None = None
) -> FastAPI:
    """The application; *clock* gives the time that records are stamped with, *desk* what pages need from above."""
    batcher, history = Batcher(champion.current, settings), History(recorder)
    service = Service(champion, recorder, settings, clock, batcher, Measures(), history, desk or Desk())
    if settings.shadow:
        places = settings.shadow_queue, settings.reload_seconds
        service.shadow = Shadow(settings.shadow, champion, recorder, lambda: batcher.waiting > 0, *places)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        _start(service)
        yield
        await run_in_threadpool(_stop, service)

    app = FastAPI(
        title="Loupe", description=documents.DESCRIPTION, version="1", lifespan=lifespan, docs_url=None, redoc_url=None
    )
    app.state.service = service
    app.add_middleware(BoundedHeaders)
    for kind in (LoupeError, StorageError):
        app.add_exception_handler(kind, _refuse)
    app.add_exception_handler(Exception, _broken)
    rights = Rights(settings)
    _add_routes(app, service, rights)
    add_pages(app)
    add_review(app, service, rights)
    add_desk(app, service, rights)
    return app


def _start(service: Service) -> None:
    service.batcher.start()
    if service.shadow:
        service.shadow.start()
    service.recorder.shipper.start()
    service.line.start()
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
    service.line.stop(service.settings.drain_seconds)
    if service.shadow:
        service.shadow.stop(service.settings.drain_seconds)
    service.recorder.shipper.stop(service.settings.drain_seconds)


async def _refuse(_: Request, error: Exception) -> JSONResponse:
    status = error.status if isinstance(error, RequestError) else 422 if isinstance(error, DataError) else 503
    headers = {"Retry-After": "1"} if status == 503 else {}
    if status in (408, 413):
        headers["Connection"] = "close"  # the rest of the body is not wanted
    return JSONResponse({"detail": str(error)}, status, headers)


async def _broken(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(unexpected(error))}, 500)


def _add_routes(app: FastAPI, service: Service, rights: Rights) -> None:
    @app.post("/v1/score", dependencies=[Depends(rights.need("operator"))], **documents.SCORE)
    async def score(
        request: Request,
        told: Annotated[Trace, Depends(told_in_query)],
        source: Source = DEFAULT_SOURCE,
        heatmap: HeatMap = "none",
        group: str | None = None,
        id: Key = None,
    ) -> JSONResponse:
        """Score one or many images: raw score, p-value, decision; all in the score log before the answer leaves.

        *group* says what they show, where the model knows several; without it the overall calibration decides. Which
        part they show may stand in the query, in fields of the form, or in headers such as X-Loupe-Part.
        """
        service.champion.served.bundle.require_group(group)
        uploads, fields = await read_uploads(request, service.settings)
        trace = joined(told, fields, of_headers(request.headers))
        key = checked_key(id or request.headers.get("idempotency-key"))
        asked = Asked(uploads, checked_source(source), heatmap, group, trace, key)
        return JSONResponse(await score_uploads(service, triggered(service, asked)))

    @app.get("/v1/models/current", dependencies=[Depends(rights.need("viewer"))], responses=documents.MODEL_RESPONSES)
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
        outputs = {one.name: "waiting" if one.failing else "ok" for one in service.line.outputs.standing()}
        store = "waiting" if service.recorder.shipper.failing else "ok"
        return {"status": "ready", "store": store, **({"outputs": outputs} if outputs else {})}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus text format."""
        return Response(service.measures.render(service), media_type="text/plain; version=0.0.4")
