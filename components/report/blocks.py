"""What a report is made of. The same blocks become HTML (``page``) and, for the benchmark, Markdown.

Text may hold `code`, **bold** and [links](target); everything else in it is shown as it stands.
"""

import base64
import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["svg+xml", "png", "jpeg"]


@dataclass(frozen=True)
class Share:
    """A share from 0 to 1 that a table shows as a bar, with what stands beside it."""

    part: float
    text: str


Cell = str | Share


@dataclass(frozen=True)
class Text:
    """A paragraph; *lead* paragraphs are the ones to read first, *note* paragraphs explain how to read something."""

    text: str
    kind: Literal["plain", "lead", "note"] = "plain"


@dataclass(frozen=True)
class Bullets:
    """Short sentences below each other."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    """One figure to remember: what it is, its value, and what it rests on."""

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Figures in large type."""

    items: tuple[Fact, ...]


@dataclass(frozen=True)
class Table:
    """Rows below *head*. In Markdown a table too wide for a line is cut before each column of *cuts*, and every part
    begins with the first *keys* columns."""

    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    keys: int = 1
    cuts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A thing with several sentences, which no table line would hold: a title, and pairs of what and what of it."""

    title: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Entries:
    """Entries beside or below each other, as the screen has room."""

    items: tuple[Entry, ...]


@dataclass(frozen=True)
class Figure:
    """A picture inside the page. *name* is the stem of its file where figures lie beside the page; *alt* says in words
    what it shows; a *wide* one keeps its size on a narrow screen and is scrolled."""

    name: str
    alt: str
    data: bytes
    kind: Kind
    caption: str = ""
    wide: bool = False

    @property
    def uri(self) -> str:
        return f"data:image/{self.kind};base64,{base64.b64encode(self.data).decode()}"


@dataclass(frozen=True)
class Figures:
    """Figures beside each other; *small* ones are thumbnails."""

    items: tuple[Figure, ...]
    small: bool = False


Block = Text | Bullets | Facts | Table | Entries | Figures


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it; *short* is its name in the list of contents."""

    title: str
    blocks: tuple[Block, ...]
    short: str = ""

    @property
    def anchor(self) -> str:
        return anchor(self.title)


@dataclass(frozen=True)
class Page:
    """A whole report: title, the sentences to read first, and sections."""

    title: str
    lead: tuple[str, ...]
    sections: tuple[Section, ...]
    about: str = ""
    links: tuple[tuple[str, str], ...] = ()


def anchor(title: str) -> str:
    """How links name a heading; the same as in Markdown."""
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
