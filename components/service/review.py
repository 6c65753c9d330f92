"""The routes of the review page: records by filters, labels, their pictures, and a table for spreadsheets."""

import csv
import io
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import AliasChoices, BaseModel, Field, model_validator
from starlette.concurrency import run_in_threadpool

from components.core.errors import RequestError
from components.core.records import TRACE_COLUMNS
from components.scorelog.table import Record
from components.service import documents
from components.service.answers import Service, answered, overlay_of
from components.service.filing import NAME_BYTES
from components.service.history import Filter, Labelled
from components.service.likeness import MOST as MOST_ALIKE
from components.service.likeness import Likeness
from components.service.rights import Caller, Rights

SAID = ("label", "reviewer", "labelled_at", "tags", "shapes")
LISTED = (*documents.RESULT, "source", "scored_at", *SAID)
TABLE = (
    "record_id", "scored_at", "source", "image_id", "decision", "score", "threshold", "p_value", "model_version",
    *TRACE_COLUMNS, "regions",
)  # fmt: skip
WRITTEN = ("image_id", "source", "reviewer", "tags", *TRACE_COLUMNS)  # columns that hold what people wrote
Coordinate = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
RecordId = Annotated[str, Field(max_length=64)]
Moment = Annotated[str | None, Query(pattern=r"^\d{4}-\d{2}-\d{2}(T[\d:.]+(Z|[+]00:00)?)?$", examples=["2026-11-28"])]
PAGE, MOST = 1000, 100_000  # records of one read, and of one table


class Shape(BaseModel):
    """Where a defect is, drawn by hand, in pixels of the picture: a box has two opposite corners, a stroke a width."""

    kind: Literal["box", "polygon", "stroke"]
    points: list[tuple[Coordinate, Coordinate]] = Field(min_length=1, max_length=2000)
    width: float | None = Field(None, gt=0, le=10_000, allow_inf_nan=False)

    @model_validator(mode="after")
    def _whole(self) -> "Shape":
        least = {"box": 2, "polygon": 3, "stroke": 1}[self.kind]
        if len(self.points) < least or (self.kind == "box" and len(self.points) > 2):
            raise ValueError(f"a {self.kind} has {least} points" + ("" if self.kind == "box" else " or more"))
        return self


class Label(BaseModel):
    """A reviewer's click, with what was drawn of the defect."""

    # Programs of sites may still send it by its former name.
    label: Literal["defect", "false_alarm", "withdrawn"] = Field(validation_alias=AliasChoices("label", "verdict"))
    reviewer: str = Field("", max_length=100)
    tags: list[Annotated[str, Field(max_length=40)]] = Field(default=[], max_length=12)
    shapes: list[Shape] = Field(default=[], max_length=50)


def wanted(
    decision: Annotated[Literal["normal", "anomalous"] | None, Query()] = None,
    source: Annotated[str | None, Query(max_length=NAME_BYTES)] = None,
    labelled: Annotated[Labelled | None, Query(description="no: those that nobody has labelled yet")] = None,
    since: Moment = None,
    until: Moment = None,
    min_score: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    max_score: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    search: Annotated[str | None, Query(max_length=200, description="part of a name, a tag or a reviewer")] = None,
) -> Filter:
    """The filters of a request; times are UTC, to the second."""
    times = (since and since[:19], until and until[:19])
    return Filter(decision, source, labelled, *times, min_score, max_score, search)


def add_review(app: FastAPI, service: Service, rights: Rights) -> None:
    """Mount the guarded data routes."""
    guard, operator = [Depends(rights.need("viewer"))], Depends(rights.need("operator"))
    likeness = Likeness(service.recorder.store, service.history)
    refusals: documents.Responses = {status: documents.REFUSALS[status] for status in (401, 403, 404, 422, 503)}

    @app.get("/v1/records", dependencies=guard, responses={401: documents.REFUSALS[401]})
    async def records(
        found: Annotated[Filter, Depends(wanted)],
        limit: Annotated[int, Query(ge=1, le=1000)] = 60,
        before: Annotated[str | None, Query(max_length=120, description="`next` of the page before")] = None,
    ) -> dict[str, Any]:
        """Images of any age, newest first, with the reviewers' labels; `next` begins the following page."""
        page = await service.read(service.history.page, found, before, limit)
        return {
            "records": [{k: row.get(k) for k in LISTED} | answered(row) for row in page.records],
            "sources": await service.read(service.history.sources),
            "next": page.next,
            "complete": page.complete and service.recorder.loaded,
        }

    @app.get("/v1/records/alike", dependencies=guard, responses={401: documents.REFUSALS[401]})
    async def alike(
        found: Annotated[Filter, Depends(wanted)], limit: Annotated[int, Query(ge=1, le=MOST_ALIKE)] = MOST_ALIKE // 2
    ) -> dict[str, Any]:
        """The newest images that match, in an order in which like stands by like; `kind` counts the kinds of them."""
        rows, complete = await service.read(likeness.page, found, limit)
        sources = await service.read(service.history.sources)
        listed = [{k: row.get(k) for k in (*LISTED, "kind")} for row in rows]
        return {"records": listed, "sources": sources, "next": None, "complete": complete}

    @app.get("/v1/records.csv", dependencies=guard, responses=documents.TABLE | {401: documents.REFUSALS[401]})
    async def as_csv(found: Annotated[Filter, Depends(wanted)]) -> StreamingResponse:
        """The same records as a table, at most 100,000; what a spreadsheet would take for a formula is quoted."""
        name = {"Content-Disposition": 'attachment; filename="loupe-records.csv"'}
        return StreamingResponse(_lines(service, found), media_type="text/csv; charset=utf-8", headers=name)

    @app.put("/v1/records/{record_id}/label", responses=refusals)
    async def label(record_id: RecordId, body: Label, caller: Annotated[Caller, operator]) -> dict[str, Any]:
        """Say whether the image shows a real defect or was a false alarm, and why; feeds retraining.

        Without a name the record says whose token labelled. Only an alarm can be a false one.
        """
        record = await service.read(service.history.find, record_id)
        who = body.reviewer.strip() or caller.name
        given = (record, body.label, who, service.clock(), ", ".join(_tags(body.tags)), _shapes(body, record))
        return await run_in_threadpool(_label, service, rights, caller, given)

    _add_pictures(app, service, guard, refusals)


def _label(service: Service, rights: Rights, caller: Caller, given: Any) -> dict[str, Any]:
    record, wanted, reviewer, _, tags, shapes = given
    now = service.recorder.labels.get(record["record_id"], {})
    before = {key: now.get(key) for key in ("label", "reviewer", "tags", "shapes")} if now else None
    after = {"label": wanted, "reviewer": reviewer, "tags": tags, "shapes": shapes}
    with rights.written(caller, "label", record["record_id"], before, after):
        return service.recorder.label(*given)


def _shapes(body: Label, record: Record) -> str:
    """As JSON. Raises RequestError for what lies outside the picture, or belongs to no defect."""
    if body.shapes and body.label != "defect":
        raise RequestError(422, "shapes are drawn of a defect; label the picture as one")
    width, height = record["width"], record["height"]
    for shape in body.shapes:
        if any(x > width or y > height for x, y in shape.points):
            raise RequestError(422, f"a {shape.kind} reaches beyond the picture of {width} x {height} pixels")
    return json.dumps([shape.model_dump(exclude_none=True) for shape in body.shapes]) if body.shapes else ""


def _tags(given: list[str]) -> list[str]:
    """Each once, without the comma that joins them. Raises RequestError for one without letters."""
    tags = [" ".join(tag.replace(",", " ").split()) for tag in given]
    if not all(tags):
        raise RequestError(422, "a tag is empty; leave it out")
    return list(dict.fromkeys(tags))


async def _lines(service: Service, found: Filter) -> AsyncIterator[str]:
    """Read page by page, so that a long table takes no memory and holds no thread."""
    yield _csv([(*TABLE, *SAID)])
    before, many = None, 0
    while many < MOST:
        page = await service.read(service.history.page, found, before, PAGE)
        yield _csv([[_cell(name, row) for name in (*TABLE, *SAID)] for row in page.records])
        before, many = page.next, many + len(page.records)
        if before is None:
            return


def _cell(name: str, row: Record) -> Any:
    value = row.get(name)
    return f"'{value}" if name in WRITTEN and str(value)[:1] in "=+-@\t" and value else value


def _csv(rows: Any) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerows(rows)
    return stream.getvalue()


def _add_pictures(app: FastAPI, service: Service, guard: list[Any], refusals: documents.Responses) -> None:
    """Mount what a record shows: its image, the clip around it, its heat."""

    def shown(what: str, answers: documents.Responses) -> Any:
        path = f"/v1/records/{{record_id}}/{what}"
        return app.get(path, dependencies=guard, responses=refusals | answers, response_class=Response)

    async def stored(record_id: str, of: Any) -> bytes:
        record = await service.read(service.history.find, record_id)
        return bytes(await service.read(of, record))

    @shown("image", documents.BYTES)
    async def image(record_id: RecordId) -> Response:
        """The image as it was sent."""
        return Response(await stored(record_id, service.recorder.image), media_type="application/octet-stream")

    @shown("clip", documents.MOVING)
    async def clip(record_id: RecordId) -> Response:
        """The clip around an alarm of a watched stream, an animated WebP."""
        return Response(await stored(record_id, service.recorder.clip), media_type="image/webp")

    @shown("overlay", documents.PICTURE)
    async def overlay(record_id: RecordId) -> Response:
        """The image with the heat map of the present model, PNG."""
        return Response(await overlay_of(service, record_id), media_type="image/png")
