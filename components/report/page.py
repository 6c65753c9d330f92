"""A report as one HTML file: style and figures inside, no script, nothing from the network.

Jinja2 escapes everything; of the text of a block only `code`, **bold** and [links](target) become marks.
"""

import re
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from components.core.artefacts import aside
from components.core.system import replace
from components.report.blocks import Page

MARKS = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*([^*]+)\*\*"), r"<strong>\1</strong>"),
)
UNIT = re.compile(r"(?<=\d) %")  # stays with its number
LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
INSIDE = ("#", "http://", "https://", "file:", "data:")  # targets that do not depend on where the page lies
REFUSED = ("javascript:", "vbscript:")


def html(page: Page, base: str = "") -> str:
    """The page as text. Relative links are of a page in the folder *base*, as this one sees it; "": its own."""
    return _templates().get_template("page.html").render(page=page, base=base)


def write(page: Page, out: Path, base: str = "") -> Path:
    """The page as file *out*, put in its place whole."""
    with aside(out) as scratch:
        scratch.write_text(html(page, base), encoding="utf-8")
        return replace(scratch, out)


def marked(text: str, base: str = "") -> Markup:
    """*text* with its marks as HTML; whatever else it holds is escaped."""
    found = str(escape(text))
    found = LINK.sub(lambda link: f'<a href="{_target(link[2], base)}">{link[1]}</a>', found)
    found = UNIT.sub("&nbsp;%", found)
    for pattern, put in MARKS:
        found = pattern.sub(put, found)
    return Markup(found)


def target(link: str, base: str = "") -> str:
    """A link as this page must write it."""
    return _target(link, base)


def _target(link: str, base: str) -> str:
    if link.lower().startswith(REFUSED):
        return "#"
    return link if not base or link.startswith(INSIDE) else f"{base.rstrip('/')}/{link}"


@cache
def _templates() -> Environment:
    found = Environment(
        loader=PackageLoader("components.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(marked=marked, target=target)
    found.tests["share"] = lambda cell: hasattr(cell, "part")
    found.globals["style"] = Markup((Path(__file__).parent / "templates" / "style.css").read_text())
    return found
