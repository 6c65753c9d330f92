"""Data docs that read without a network: the stock pages load style, tables and a logo from elsewhere."""

import html
import re
from pathlib import Path
from typing import Any

STYLE = (
    "<style>body{font:15px sans-serif;margin:2em auto;padding:0 1em;max-width:72em;overflow-wrap:anywhere}"
    "table{border-collapse:collapse;display:block;overflow-x:auto}"
    "td,th{border:1px solid #bbb;padding:.3em .6em;text-align:left;vertical-align:top;min-width:4em}"
    ".bad{background:#fdd}.collapse,.tab-pane{display:block!important}.hide-on-offline,nav,.modal{display:none}"
    "</style>"
)
FOREIGN = re.compile(  # whatever asks for something, needs a script, or sells: the logo, walk-through, newsletter
    r"<script\b.*?</script>|<link\b[^>]*>|<img\b[^>]*https?:[^>]*>|<footer\b.*?</footer>"
    r"|url\(\s*['\"]?https?:[^)]*\)|@import[^;]*;",
    re.IGNORECASE | re.DOTALL,
)


def make_offline(docs: Path, summary: dict[str, Any]) -> Path:
    """Rewrite the pages below *docs* and put a static index in front; returns the index."""
    pages = []
    for page in sorted(docs.rglob("*.html")):
        page.write_text(FOREIGN.sub("", page.read_text()).replace("</head>", f"{STYLE}</head>", 1))
        if "validations" in page.parts:
            pages.append(page.relative_to(docs).as_posix())
    index = docs / "index.html"
    index.write_text(_index(summary, pages))
    return index


def _index(summary: dict[str, Any], pages: list[str]) -> str:
    checks = "".join(
        f"<tr class={'ok' if c['success'] else 'bad'}><td>{c['expectation']}</td><td>{c['column']}</td>"
        f"<td>{'kept' if c['success'] else 'broken'}</td><td>{html.escape(', '.join(c['unexpected']))}</td></tr>"
        for c in summary["expectations"]
    )
    counts = "".join(f"<tr><td>{html.escape(k)}</td><td>{v}</td></tr>" for k, v in summary["counts"].items())
    bad = "".join(f"<tr class=bad><td>{html.escape(q)}</td></tr>" for q in summary["quarantined"])
    links = "".join(f"<li><a href='{html.escape(p)}'>{html.escape(p)}</a></li>" for p in pages)
    return (
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>Data validation</title>{STYLE}<h1>{html.escape(summary['dataset'])}"
        f": {'contract kept' if not summary['broken'] else 'contract broken'}</h1>"
        f"<p>{html.escape('; '.join(summary['broken']))}</p><h2>Images</h2><table>{counts}</table>"
        f"<h2>Expectations on the clean table</h2><table>{checks}</table>"
        f"<h2>Quarantined files</h2><table>{bad or '<tr><td>none</td></tr>'}</table><h2>Full pages</h2><ul>{links}</ul>"
    )
