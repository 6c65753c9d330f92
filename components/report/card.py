"""The model card of a bundle, MODEL_CARD.md, as blocks of a page."""

import re
from pathlib import Path

from components.report.blocks import Block, Section, Table, Text

FILE = "bundle/MODEL_CARD.md"


def parts(run: Path) -> tuple[str, tuple[Block, ...]]:
    """The card's title, and its paragraphs and tables."""
    title, *rest = (run / FILE).read_text().strip().split("\n\n")
    return title.removeprefix("#").strip(), tuple(_block(part) for part in rest)


def section(run: Path) -> Section:
    return Section("Model card", parts(run)[1])


def _block(part: str) -> Block:
    lines = part.splitlines()
    if not all(line.startswith("|") for line in lines):
        return Text(" ".join(line.strip() for line in lines))
    rows = [tuple(cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]) for line in lines]
    head, body = rows[0], [row for row in rows[1:] if set("".join(row)) - set("-: ")]
    return Table(head, tuple(body))
