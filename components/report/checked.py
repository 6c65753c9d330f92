"""The data check of a run, as a section: what was found in the folder, what was left out, how it was split."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from components.report.blocks import Block, Bullets, Fact, Facts, Section, Table, Text
from components.report.numbers import counted

SIDES = ("fit", "calibrate", "test", "excluded")
WHAT = {"fit": "learned from", "calibrate": "set the threshold", "test": "measure only", "excluded": "left out"}
MOST = 8  # files that are named
ELSEWHERE = "The data set was checked when the members were trained: see their reports."


def data_section(data: Mapping[str, Any] | None, run: Path) -> Iterator[Section]:
    """Of RUN/report/data.json; nothing without it."""
    if data is None:
        return
    summaries = data["validation"]
    blocks: list[Block] = [Facts(tuple(_facts(summaries, data)))] if summaries else [Text(ELSEWHERE)]
    if table := _sides(data["counts"]):
        blocks.append(table)
    if findings := tuple(_findings(summaries, data["copies"])):
        blocks.append(Bullets(findings))
    if pages := [page for page in data["pages"] if (run / page).exists()]:
        links = ", ".join(f"[{Path(page).parts[-4]}]({quote(page)})" for page in pages)
        blocks.append(Text(f"Full validation report: {links}.", "note"))
    yield Section("Data check", tuple(blocks))


def _facts(summaries: list[dict[str, Any]], data: Mapping[str, Any]) -> Iterator[Fact]:
    yield Fact("pictures found", f"{sum(s['files'] for s in summaries):,}")
    yield Fact(
        "quarantined", f"{sum(len(s['quarantined']) for s in summaries):,}", "unreadable or against the contract"
    )
    broken = sum(len(s["broken"]) for s in summaries)
    yield Fact("expectations broken", str(broken), "none may be" if not broken else "see the validation report")
    yield Fact("copies", f"{data['copies'].get('pairs', 0):,}", "pairs of the same exposure")


def _sides(counts: Mapping[str, int]) -> Table | None:
    found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
    for key, n in counts.items():
        group, label, side = key.rsplit("/", 2)
        found[group, label][side] = n
    sides = [side for side in SIDES if any(side in own for own in found.values())]
    head = ("group", "label", *(f"{side}: {WHAT[side]}" for side in sides))
    rows = tuple((*pair, *(str(own.get(side, 0)) for side in sides)) for pair, own in sorted(found.items()))
    return Table(head, rows) if rows else None


def _findings(summaries: list[dict[str, Any]], copies: Mapping[str, Any]) -> Iterator[str]:
    if expected := [e["success"] for s in summaries for e in s["expectations"]]:
        yield f"{sum(expected)} of {counted(len(expected), 'expectation')} hold."
    for summary in summaries:
        names = [str(q.get("image_id", q)) if isinstance(q, dict) else str(q) for q in summary["quarantined"]]
        if names:
            yield f"Quarantined in {summary['dataset']}: {_named(names)}."
        for what, why in (summary.get("unavailable") or {}).items():
            yield f"{what} cannot be measured: {why}."
        yield from (f"Broken: {text}." for text in summary["broken"])
    yield from (str(text) for text in copies.get("said", []))


def _named(names: list[str]) -> str:
    more = len(names) - MOST
    return ", ".join(f"`{name}`" for name in names[:MOST]) + (f" and {more} more" if more > 0 else "")
