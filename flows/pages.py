"""What Prefect's pages show of a run: links that a browser may open, and the data check as tables.

A page of a server may not link to a file of the disk: browsers refuse it. Where the project's folder of artefacts is
served, as by `make stack`, the variable LOUPE_PAGES holds the address, and a link leads there. Elsewhere the place is
written down, to be opened by hand.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prefect.artifacts import create_link_artifact, create_markdown_artifact

PAGES = "LOUPE_PAGES"
MOST = 20  # files that a table names


def address(page: Path, root: Path) -> str | None:
    """Where a browser finds *page*, a file below the folder of artefacts *root*; None where nobody serves them."""
    served, inside = os.environ.get(PAGES, "").rstrip("/"), page.resolve()
    if not served or not inside.is_relative_to(root.resolve()):
        return None
    return f"{served}/{quote(inside.relative_to(root.resolve()).as_posix())}"


def show_page(page: Path, root: Path, key: str, text: str) -> None:
    """An artefact that leads to *page*."""
    if link := address(page, root):
        create_link_artifact(link, key=key, link_text=text)
    else:
        create_markdown_artifact(f"{text}: open `{page.resolve()}` in a browser", key=key)


def checked(summary: Mapping[str, Any], docs: Path, root: Path) -> str:
    """The data check of a data set as Markdown: verdict, pictures, checks, and which files are left out."""
    broken = summary["broken"]
    said = [f"## {_plain(summary['dataset'])}: {'contract broken' if broken else 'contract kept'}"]
    said += [f"- {_plain(why)}" for why in broken]
    counts = [[*name.rsplit("/", 2), n] for name, n in summary["counts"].items()]
    said.append(_table(("group", "role", "label", "pictures"), counts))
    kept = [
        (c["expectation"], c["column"], "kept" if c["success"] else "**broken**", ", ".join(c["unexpected"][:MOST]))
        for c in summary["expectations"]
    ]
    said.append(_table(("check", "column", "result", "pictures that break it"), kept))
    for title, lines in (("quarantined", summary["quarantined"]), ("left out as repeats", summary["repeats"])):
        said.append(_listed(title, lines))
    missing = summary["unavailable"].items()
    said.append(_table(("figures that this data set cannot give", "why"), list(missing)) if missing else "")
    link = address(docs, root)
    said.append(f"[All of it]({link})" if link else f"All of it: `{docs.resolve()}`")
    return "\n\n".join(part for part in said if part)


def _listed(title: str, lines: Sequence[str]) -> str:
    if not lines:
        return f"No file is {title}."
    more = [f"... and {len(lines) - MOST} more"] if len(lines) > MOST else []
    return _table((f"{len(lines)} {title}",), [[line] for line in (*lines[:MOST], *more)])


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    every = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_plain(cell) for cell in row) + " |" for row in every)


def _plain(cell: Any) -> str:
    """One line without what would end a cell of the table or begin an element: names of files may hold anything."""
    return " ".join(str(cell).split()).replace("|", "\\|").replace("<", "&lt;")
