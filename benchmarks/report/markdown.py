"""A report page as Markdown with its figures beside it; no line is longer than a screen."""

from collections.abc import Iterator
from pathlib import Path

from benchmarks.common.tables import WIDTH, Line, markdown, stacked, wrapped
from components.report.blocks import Block, Bullets, Entries, Facts, Figure, Figures, Page, Share, Table, Text


def text(page: Page) -> str:
    """The page; figures are named as ``write`` puts them beside it."""
    contents = [f"- [{section.title}](#{section.anchor})" for section in page.sections]
    parts = [f"# {page.title}", wrapped(page.about), *map(wrapped, page.lead), "\n".join(contents)]
    for section in page.sections:
        parts += [f"## {section.title}", *(part for block in section.blocks for part in _block(block))]
    return "\n\n".join(part for part in parts if part) + "\n"


def write(page: Page, folder: Path) -> Path:
    """README.md and its figures in *folder*."""
    folder.mkdir(parents=True, exist_ok=True)
    for figure in figures(page):
        (folder / file_of(figure)).write_bytes(figure.data)
    (folder / "README.md").write_text(text(page))
    return folder / "README.md"


def figures(page: Page) -> Iterator[Figure]:
    """All figures of a page."""
    for section in page.sections:
        for block in section.blocks:
            if isinstance(block, Figures):
                yield from block.items


def file_of(figure: Figure) -> str:
    """The file of a figure beside the page."""
    return f"{figure.name}.{figure.kind.removesuffix('+xml')}"


def _block(block: Block) -> Iterator[str]:
    if isinstance(block, Text):
        yield wrapped(block.text)
    elif isinstance(block, Bullets):
        yield "\n".join(wrapped(f"- {item}", "  ") for item in block.items)
    elif isinstance(block, Facts):
        yield markdown(("", "", ""), ((fact.name, fact.value, fact.note) for fact in block.items))
    elif isinstance(block, Table):
        yield _table(block)
    elif isinstance(block, Entries):
        for entry in block.items:
            yield f"### {entry.title}"
            yield "\n".join(wrapped(f"- {name}: {value}", "  ") for name, value in entry.pairs)
    else:
        for figure in block.items:
            yield f"![{figure.alt}]({file_of(figure)})"
            if figure.caption:
                yield wrapped(figure.caption)


def _table(block: Table) -> str:
    rows = [[cell.text if isinstance(cell, Share) else cell for cell in row] for row in block.rows]
    whole = markdown(block.head, rows)
    if max(map(len, whole.splitlines())) <= WIDTH:
        return whole
    if block.cuts:
        return stacked(block.head, rows, block.keys, *block.cuts)
    return "\n".join(wrapped(f"- {_line(block.head, row)}", "  ") for row in rows)


def _line(head: Line, row: Line) -> str:
    """A row of a table that is too wide, as a sentence."""
    first, *rest = row
    return f"{first}: " + "; ".join(f"{name} {cell}" for name, cell in zip(head[1:], rest, strict=True))
