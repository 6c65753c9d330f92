"""From a request to named image bytes: bounded in size, number and time, and refused in clear words."""

import asyncio
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import NamedTuple

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from components.core.errors import RequestError
from components.core.records import TRACE_COLUMNS
from components.service.settings import ServiceSettings

SOURCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
MEGABYTE = 1_000_000
REPLACED = "\ufffd"  # what decoders put in place of bytes that are not UTF-8
HEADER_BYTES = 32_768
DRAINED = 4  # times the limit: so much is still read of a request that is too large


class BoundedHeaders:
    """Answers 431 to a request whose headers together are longer than HEADER_BYTES."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and sum(len(k) + len(v) for k, v in scope["headers"]) > HEADER_BYTES:
            said = f"the headers are longer than {HEADER_BYTES} bytes; send fewer or shorter ones"
            await JSONResponse({"detail": said}, 431, {"Connection": "close"})(scope, receive, send)
        else:
            await self.app(scope, receive, send)


@dataclass(frozen=True)
class Upload:
    name: str
    content: bytes


class Given(NamedTuple):
    """The images of a request, and what the fields of its form tell."""

    uploads: list[Upload]
    fields: dict[str, str]


def checked_source(source: str) -> str:
    """Raises RequestError unless *source* can name a partition of the score log."""
    if not SOURCE.fullmatch(source):
        raise RequestError(422, f"source {source!r}: use 1 to 64 letters, digits, dots, dashes, underscores")
    return source


def checked_name(name: str) -> str:
    """Raises RequestError when a file name could be taken for a path or cannot be shown."""
    if not name or len(name) > 255 or not name.isprintable() or REPLACED in name:
        raise RequestError(422, "file name: use 1 to 255 printable characters in UTF-8")
    if "/" in name or "\\" in name or name.startswith("."):
        raise RequestError(422, f"file name {name!r}: looks like a path; send the bare name")
    return name


async def read_uploads(request: Request, settings: ServiceSettings) -> Given:
    """All images of a multipart form, or the raw body as one. Raises RequestError."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data" and kind != "application/octet-stream" and not kind.startswith("image/"):
        raise RequestError(415, f"content type {kind or 'missing'}: send multipart/form-data, image/* or octet-stream")
    body = await _read_body(request, settings)
    if kind != "multipart/form-data":
        return Given([Upload(checked_name(request.query_params.get("name", "image")), _filled(body, "the body"))], {})
    return await _read_form(request, body, settings)


async def _read_body(request: Request, settings: ServiceSettings) -> bytes:
    """The body; one that is too large is read to its end and thrown away, within bounds.

    An answer in the middle of an upload closes the connection under the client, who would not see why.
    """
    limit, declared = int(settings.max_upload_mb * MEGABYTE), request.headers.get("content-length", "0")
    too_large = declared.isdigit() and int(declared) > limit
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(settings.body_seconds):
            async for part in request.stream():
                size += len(part)
                too_large = too_large or size > limit
                if too_large and size > DRAINED * limit:
                    break
                if too_large:
                    parts.clear()
                else:
                    parts.append(part)
    except TimeoutError:
        if not too_large:
            said = f"the upload took longer than {settings.body_seconds:g} s; send it again"
            raise RequestError(408, said) from None
    if too_large:
        said = f"the request is larger than {settings.max_upload_mb:g} MB; send fewer or smaller images"
        raise RequestError(413, said)
    return b"".join(parts)


async def _read_form(request: Request, body: bytes, settings: ServiceSettings) -> Given:
    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        parser = MultiPartParser(request.headers, once(), max_files=settings.max_files, max_fields=8)
        form = await parser.parse()
    except (MultiPartException, KeyError, ValueError, UnicodeDecodeError) as error:
        reason = getattr(error, "message", None) or "its parts or their names cannot be read"
        raise RequestError(400, f"the multipart form is broken: {reason}") from None
    uploads, fields = [], dict[str, str]()
    for field, value in form.multi_items():
        if field in TRACE_COLUMNS and isinstance(value, str) and field not in fields:
            fields[field] = value
            continue
        if not isinstance(value, UploadFile):
            raise RequestError(422, f"form field {field!r} is no file; send images as files, options in the query")
        name = checked_name(_utf8_name(value))
        uploads.append(Upload(name, _filled(await value.read(), name)))
    await form.close()
    if not uploads:
        raise RequestError(422, "the form holds no file; send at least one image")
    return Given(uploads, fields)


def _utf8_name(file: UploadFile) -> str:
    """The file's name; none when its header is not UTF-8, which the parser would read as Latin-1."""
    header = dict(file.headers.raw).get(b"content-disposition", b"")
    try:
        header.decode()
    except UnicodeDecodeError:
        return ""
    return file.filename or ""


def _filled(content: bytes, name: str) -> bytes:
    if not content:
        raise RequestError(422, f"{name} is empty; send the bytes of an image file")
    return content
