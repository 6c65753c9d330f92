"""The review page and the routes it uses."""

from collections.abc import Callable
from importlib.resources import files
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import HTMLResponse, Response
from pydantic import AliasChoices, BaseModel, Field
from starlette.concurrency import run_in_threadpool

from components.service import documents
from components.service.answers import Service, overlay_of
from components.service.filing import NAME_BYTES

LISTED = (*documents.RESULT, "source", "scored_at", "label")
RecordId = Annotated[str, Field(max_length=64)]


class Label(BaseModel):
    """A reviewer's click."""

    # Programs of sites may still send it by its former name.
    label: Literal["defect", "false_alarm", "withdrawn"] = Field(validation_alias=AliasChoices("label", "verdict"))
    reviewer: str = Field("", max_length=100)


def add_review(app: FastAPI, service: Service, check: Callable[[Request], None]) -> None:
    """Mount the page (open to all, it holds no data) and its guarded data routes."""
    guard = [Depends(check)]
    page = files("components.service").joinpath("review.html").read_text()
    refusals: documents.Responses = {status: documents.REFUSALS[status] for status in (401, 404, 422, 503)}

    @app.get("/review", response_class=HTMLResponse, include_in_schema=False)
    async def review() -> str:
        return page

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def root() -> str:
        return page

    @app.get("/v1/records", dependencies=guard, responses={401: documents.REFUSALS[401]})
    async def records(
        decision: Annotated[Literal["normal", "anomalous"] | None, Query()] = None,
        source: Annotated[str | None, Query(max_length=NAME_BYTES)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 60,
    ) -> dict[str, Any]:
        """The latest images, newest first, with the reviewers' labels."""
        rows = service.recorder.select(decision, source, limit)
        sources = sorted({row["source"] for row in service.recorder.select(None, None, 1000)})
        return {"records": [{k: row.get(k) for k in LISTED} for row in rows], "sources": sources}

    @app.put("/v1/records/{record_id}/label", dependencies=guard, responses=refusals)
    async def label(record_id: RecordId, body: Label) -> dict[str, Any]:
        """Say whether the image shows a real defect or was a false alarm; feeds retraining."""
        at = service.clock()
        return await run_in_threadpool(service.recorder.label, record_id, body.label, body.reviewer, at)

    _add_pictures(app, service, guard, refusals)


def _add_pictures(app: FastAPI, service: Service, guard: list[Any], refusals: documents.Responses) -> None:
    """Mount what a record shows: its image, the clip around it, its heat."""

    def shown(what: str, answers: documents.Responses) -> Any:
        path = f"/v1/records/{{record_id}}/{what}"
        return app.get(path, dependencies=guard, responses=refusals | answers, response_class=Response)

    @shown("image", documents.BYTES)
    async def image(record_id: RecordId) -> Response:
        """The image as it was sent."""
        content = await run_in_threadpool(service.recorder.image, record_id)
        return Response(content, media_type="application/octet-stream")

    @shown("clip", documents.MOVING)
    async def clip(record_id: RecordId) -> Response:
        """The clip around an alarm of a watched stream, an animated WebP."""
        return Response(await run_in_threadpool(service.recorder.clip, record_id), media_type="image/webp")

    @shown("overlay", documents.PICTURE)
    async def overlay(record_id: RecordId) -> Response:
        """The image with the heat map of the present model, PNG."""
        return Response(await overlay_of(service, record_id), media_type="image/png")
