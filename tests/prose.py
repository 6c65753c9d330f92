"""`python -m tests.prose`: lines and sentences of the documents that are too long to read; `make check` runs it.

A line has at most 120 characters. A sentence has at most 40 words up to its full stop or semicolon, and on the pages
for beginners 25. Code, tables, headings and figures are no sentences; decision records and the changelog stay as they
were written.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

LINE, SENTENCE, EASY = 120, 40, 25  # characters, words, words
BEGINNERS = ("tutorial", "which-detector", "glossary", "faq")
GENERATED = ("benchmarks/results", "docs/report", "docs/reference")  # words that a program puts together
RECORDS = ("docs/adr", "CHANGELOG.md")  # written once, of their day
# Blocks of code, tables, headings, remarks, figures.
BLOCK = re.compile(
    r"^```.*?^```|^(?: {4}|\t)[^\n]*$|^\s*\|[^\n]*$|^#[^\n]*$|<!--.*?-->|!\[[^\]]*\]\([^)]*\)",
    re.MULTILINE | re.DOTALL,
)
ITEM = re.compile(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) ")  # paragraphs and entries of lists
END = re.compile(r"(?<!e\.g)(?<!i\.e)(?<! al)(?<!cf)(?<!Fig)(?<!vs)[.!?;][)*_\"']*(?=\s|$)|:\s*$")


def pages() -> list[Path]:
    """The documents that somebody reads, below the working folder."""
    found = [*Path().glob("*.md"), *Path("docs").rglob("*.md"), *Path("benchmarks").rglob("*.md")]
    return sorted(page for page in found if page.is_file() and ".venv" not in page.parts)


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page in Markdown, links as their words and code in a line as one word."""
    plain = re.sub(r"`[^`]*`", "code", BLOCK.sub("\n\n", text))
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", plain)
    for item in ITEM.split(plain):
        yield from (" ".join(part.split()) for part in END.split(item) if part.strip())


def words(sentence: str) -> int:
    return len(re.findall(r"[\w'-]*[A-Za-z][\w'-]*", sentence))


def most(page: Path) -> int:
    """How many words a sentence of *page* may have."""
    return EASY if page.stem in BEGINNERS else SENTENCE


def faults(page: Path) -> list[str]:
    """What is too long on a page."""
    text = page.read_text(encoding="utf-8")
    long = [f"{page}:{n}: {len(line)} characters" for n, line in enumerate(text.splitlines(), 1) if len(line) > LINE]
    if page.as_posix().startswith((*GENERATED, *RECORDS)):
        return long
    said = [(words(sentence), sentence) for sentence in sentences(text)]
    return long + [f"{page}: {n} words: {sentence}" for n, sentence in said if n > most(page)]


if __name__ == "__main__":
    wrong = [fault for page in pages() for fault in faults(page)]
    sys.stdout.writelines(f"{fault}\n" for fault in wrong)
    sys.exit(bool(wrong))
