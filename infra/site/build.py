"""`python infra/site/build.py`: the documents as a site in build/site, for a browser without a network (make docs).

The pages stay as they are read in a checkout. They are copied, with all they link to, into build/site-pages and put
into the words of mkdocs there. A link that leads nowhere, or a page that none knows, ends the build.
"""

import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]
PAGES, SITE = Path("build/site-pages"), Path("build/site")
FOUND = ("*.md", "docs/**/*.md", "benchmarks/**/*.md")
# Four kinds of page, kept apart: to learn by doing, to reach a goal, to look something up, to understand. A page of
# docs/ that no kind names is for a goal.
TUTORIALS = ("tutorial",)
REFERENCE = ("reference/*", "glossary", "methods/*", "report/README", "data")
EXPLANATION = (
    *("architecture", "drift", "ensembles", "pose", "sizes", "synthesis", "tiles", "training"),
    *("reliability", "promises", "adr/*"),
)
ABOUT = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"(\]\()([^)#\s]+)(#[^)]*)?(\))")
FENCE = re.compile(r"^```(\w+) .*$", re.MULTILINE)
BLOCK = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# A list or a table right below a line of text: mkdocs wants a line between them.
TIGHT = re.compile(r"^(?![-*|#>\s]|\d+\. )(\S[^\n]*)\n(?=(?:[-*] |\d+\. |\|))", re.MULTILINE)


def main() -> None:
    os.chdir(HERE)
    os.environ.setdefault("NO_MKDOCS_2_WARNING", "1")  # advertising of the theme's makers
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    sys.stdout.write(f"{built(PAGES, SITE) / 'index.html'}\n")


def built(pages: Path, site: Path) -> Path:
    """Write the *site* of the checkout in the working folder. Raises mkdocs' Abort where a link leads nowhere."""
    try:
        from mkdocs.commands.build import build
        from mkdocs.config import load_config
        from pymdownx.slugs import slugify
    except ImportError:
        sys.exit("the site needs the extra `docs`: pip install 'loupe[docs]'")
    gathered(pages)
    config = pages.with_name(f"{pages.name}.yml")
    config.write_text("site_name: Loupe\n", encoding="utf-8")
    headings = {"toc": {"slugify": slugify(case="lower"), "permalink": True}}
    words = ["tables", "attr_list", "pymdownx.superfences", "pymdownx.highlight", "sane_lists", headings]
    given: dict[str, Any] = {"markdown_extensions": words, "nav": nav(pages), "theme": theme(), "strict": True}
    strict = {"nav": {"omitted_files": "warn"}, "links": {"anchors": "warn", "unrecognized_links": "warn"}}
    places = {"docs_dir": str(pages.resolve()), "site_dir": str(site.resolve()), "use_directory_urls": False}
    build(load_config(str(config), plugins=["search"], validation=strict, **given, **places))
    return site


def theme() -> dict[str, Any]:
    """Material without fonts of another server: those of the reader's system."""
    features = ["navigation.tabs", "navigation.indexes", "toc.follow", "content.code.copy"]
    scheme = {"media": "(prefers-color-scheme: light)", "scheme": "default", "primary": "teal"}
    dark = {"media": "(prefers-color-scheme: dark)", "scheme": "slate", "primary": "teal"}
    return {"name": "material", "font": False, "features": features, "palette": [scheme, dark]}


def gathered(pages: Path) -> None:
    """All documents and what they link to, below *pages*, at the places that they have in the checkout."""
    shutil.rmtree(pages, ignore_errors=True)
    for path in sorted({path for pattern in FOUND for path in Path().glob(pattern)}):
        _copied(path, pages)


def _copied(path: Path, pages: Path) -> None:
    target = pages / path
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix != ".md":
        shutil.copyfile(path, target)
        return
    text = path.read_text(encoding="utf-8")
    target.write_text(LINK.sub(lambda found: _link(found, path, pages), in_words_of_mkdocs(text)), encoding="utf-8")


def _link(found: re.Match[str], page: Path, pages: Path) -> str:
    """The link, with what it leads to brought along; a folder is the list of what lies in it."""
    before, target, part, behind = found[1], found[2], found[3] or "", found[4]
    there = Path(os.path.normpath(page.parent / target))
    if "://" in target or not there.exists():
        return found[0]
    if there.is_file():
        if there.suffix != ".md":
            _copied(there, pages)
        return found[0]
    name = "README.md" if (there / "README.md").exists() else "index.md"
    if name == "index.md":
        _listed(there, pages)
    return f"{before}{target.rstrip('/')}/{name}{part}{behind}"


def _listed(folder: Path, pages: Path) -> None:
    lines = [f"- [{title(path)}]({path.name})" for path in sorted(folder.iterdir()) if path.is_file()]
    for path in folder.iterdir():
        if path.is_file() and path.suffix != ".md":
            _copied(path, pages)
    index = pages / folder / "index.md"
    index.parent.mkdir(parents=True, exist_ok=True)
    index.write_text(f"# {folder.as_posix()}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def title(path: Path) -> str:
    """The heading of a page; of another file its name."""
    found = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE) if path.suffix == ".md" else None
    return found[1] if found else path.name


def in_words_of_mkdocs(text: str) -> str:
    """A page of a checkout as mkdocs understands it: languages of code in one word, a line before lists and tables."""
    text = FENCE.sub(r"```\1", text)
    parts, at = [], 0
    for block in BLOCK.finditer(text):
        parts += [TIGHT.sub(r"\1\n\n", text[at : block.start()]), block[0]]
        at = block.end()
    return "".join([*parts, TIGHT.sub(r"\1\n\n", text[at:])])


def nav(pages: Path) -> list[dict[str, Any]]:
    """The menu: every page once, by its kind."""
    kinds = {"Tutorial": TUTORIALS, "Reference": REFERENCE, "Explanation": EXPLANATION}
    named = {
        kind: [page for pattern in patterns for page in _pages(pages, pattern)] for kind, patterns in kinds.items()
    }
    taken = {page for found in named.values() for page in found}
    goals = [page for page in _pages(pages, "*") if page not in taken]
    measured = [p.relative_to(pages).as_posix() for p in sorted((pages / "benchmarks").rglob("*.md"))]
    lists = [p.relative_to(pages).as_posix() for p in sorted(pages.glob("*/index.md"))]
    about = [name for name in ABOUT if (pages / name).exists()]
    return [
        {"Loupe": "README.md"},
        {"Tutorial": named["Tutorial"]},
        {"How to": goals},
        {"Reference": [*named["Reference"], {"Benchmarks": measured}]},
        {"Explanation": named["Explanation"]},
        {"About": [*about, *lists]},
    ]


def _pages(pages: Path, pattern: str) -> Iterator[str]:
    for path in sorted((pages / "docs").glob(f"{pattern}.md"), key=lambda path: (path.name != "index.md", path.name)):
        yield path.relative_to(pages).as_posix()


if __name__ == "__main__":
    main()
