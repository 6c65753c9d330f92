"""The pages for people: HTML, styles and modules from this package, in the reader's language, asking nobody else."""

import html
import json
import re
from functools import cache
from importlib.resources import files
from typing import Annotated

from fastapi import FastAPI, Query, Request
from fastapi.responses import HTMLResponse, Response

from components.core.errors import RequestError

PAGES = {"/": "overview", "/review": "review", "/threshold": "threshold", "/models": "models", "/docs": "docs"}
LANGUAGES = {"en": "English", "de": "Deutsch"}
COOKIE = "loupe-lang"
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    # What the browser itself holds the pages to: nothing from outside, no script but ours.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@cache
def _web() -> dict[str, str]:
    folder = files("components.service").joinpath("web")
    return {entry.name: entry.read_text("utf-8") for entry in folder.iterdir() if entry.is_file()}


@cache
def words(language: str) -> dict[str, str]:
    """The dictionary of one language: texts by key, with places such as {n}."""
    path = files("components.service").joinpath("web", "words", f"{language}.json")
    return dict(json.loads(path.read_text("utf-8")))


def language_of(asked: str | None, cookie: str | None, accepted: str) -> str:
    """By the switch, then by what was chosen before, then by Accept-Language; English where none of these is ours."""
    weighed = []
    for part in accepted.split(",")[:20]:
        name, _, weight = part.partition(";")
        q = re.fullmatch(r"\s*q=([01](?:\.\d{0,3})?)\s*", weight)
        weighed.append((-(float(q[1]) if q else 1.0), name.strip().lower()[:2]))
    wanted = [asked, cookie, *(name for weight, name in sorted(weighed, key=lambda pair: pair[0]) if weight)]
    return next((name for name in wanted if name in LANGUAGES), "en")


@cache
def page(name: str, language: str) -> str:
    """One page as HTML: the shell around its part, with every ``{{key}}`` from the dictionary."""
    said = words(language)
    links = "".join(
        f'<a href="{path}"{" aria-current=page" if entry == name else ""}>{html.escape(said[f"nav.{entry}"])}</a>'
        for path, entry in PAGES.items()
    )
    switch = "".join(
        f'<a href="?lang={code}" lang="{code}"{" aria-current=true" if code == language else ""} '
        f'title="{told}"><span aria-hidden="true">{code.upper()}</span><span class="aside">{told}</span></a>'
        for code, told in LANGUAGES.items()
    )
    places = {"lang": language, "page": name, "nav": links, "languages": switch, "main": _web()[f"{name}.html"]}
    places["words"] = json.dumps(said, ensure_ascii=False).replace("<", "\\u003c")
    shell = re.sub(r"{{>(\w+)}}", lambda match: places[match[1]], _web()["shell.html"])
    return re.sub(r"{{([\w.]+)}}", lambda match: html.escape(said[match[1]]), shell)


def add_pages(app: FastAPI) -> None:
    """Mount the pages and their files: open to all, they hold no data."""

    def of(name: str) -> None:
        async def shown(request: Request, lang: Annotated[str | None, Query(max_length=8)] = None) -> HTMLResponse:
            accepted = request.headers.get("accept-language", "")
            language = language_of(lang, request.cookies.get(COOKIE), accepted)
            answer = HTMLResponse(page(name, language), headers=HEADERS | {"Vary": "Accept-Language, Cookie"})
            if lang in LANGUAGES:
                answer.set_cookie(COOKIE, language, max_age=365 * 86400, httponly=True, samesite="lax")
            return answer

        path = next(path for path, entry in PAGES.items() if entry == name)
        app.get(path, response_class=HTMLResponse, include_in_schema=False)(shown)

    for name in PAGES.values():
        of(name)

    @app.get("/static/{name}", include_in_schema=False)
    async def static(name: str) -> Response:
        kind = KINDS.get("." + name.rpartition(".")[2])
        if kind is None or name not in _web():
            raise RequestError(404, "there is no such file")
        return Response(_web()[name], media_type=kind, headers=HEADERS)
