"""Tables and text in Markdown, no line longer than WIDTH."""

import textwrap
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

WIDTH = 120  # characters of a line
Line = Sequence[str]


def markdown(head: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    head = tuple(head)
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ("---",) * len(head), *lines))


def stacked(head: Line, lines: Iterable[Line], keys: int, *cuts: str) -> str:
    """One table, or where it is too wide several: each begins with the first *keys* columns, *cuts* say where."""
    lines = list(lines)
    whole = markdown(head, lines)
    if max(map(len, whole.splitlines())) <= WIDTH:
        return whole
    edges = [keys, *(head.index(cut) for cut in cuts), len(head)]
    chosen = [[*range(keys), *range(start, end)] for start, end in pairwise(edges)]
    return "\n\n".join(markdown([head[i] for i in c], ([line[i] for i in c] for line in lines)) for c in chosen)


def without(column: str, head: Line, lines: Iterable[Line]) -> tuple[list[str], list[list[str]]]:
    """The same table without a column."""
    kept = [i for i, what in enumerate(head) if what != column]
    return [head[i] for i in kept], [[line[i] for i in kept] for line in lines]


def wrapped(text: str, indent: str = "") -> str:
    """Text in lines of at most WIDTH characters; what lies between spaces stays whole."""
    return "\n".join(
        textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    )


def noted(names: Iterable[str]) -> tuple[dict[str, str], str]:
    """For names too long for a table: the number that stands there for each, and the notes below the table."""
    numbers = {name: f"({i})" for i, name in enumerate(dict.fromkeys(names), 1)}
    return numbers, "\n".join(wrapped(f"- {number} {name}", "  ") for name, number in numbers.items())


def joined(*parts: str) -> str:
    """A page of those parts that are not empty."""
    return "\n\n".join(part for part in parts if part) + "\n"


def number(values: dict[str, Any], key: str, digits: int = 3, missing: str = "-") -> str:
    return f"{values[key]:.{digits}f}" if key in values else missing


def within(value: float, interval: Sequence[float]) -> str:
    """A figure with its interval."""
    low, high = interval
    return f"{value:.3f} ({low:.3f} to {high:.3f})"


def spread(values: Iterable[float | None]) -> str:
    """The mean, and the smallest and largest of several."""
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    mean = sum(known) / len(known)
    return f"{mean:.3f}" if len(known) == 1 else within(mean, (min(known), max(known)))


def sections(page: str) -> dict[str, str]:
    """The text below each second heading of a page."""
    parts = [part.partition("\n") for part in page.split("\n## ")[1:]]
    return {title: text.strip() for title, _, text in parts}
