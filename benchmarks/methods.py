"""The generated half of the method pages: ``python -m benchmarks.methods`` rewrites docs/methods/*.md below the marker.

Settings with the comments that stand beside them in the code, the authors' figures, and what was measured here.
"""

import inspect
import io
import re
import tokenize
from pathlib import Path
from typing import Any

from benchmarks.table import HEAD, cells, results
from components.artefacts import read_json
from components.detectors import CATALOGUE, detector_class
from components.settings import plain

PAGES = Path("docs/methods")
MARKER = "<!-- Below this line: python -m benchmarks.methods -->"
MECHANISMS = Path(__file__).parent / "results" / "mechanisms.json"


def main() -> None:
    for name in CATALOGUE:
        page = PAGES / f"{name}.md"
        page.write_text(f"{page.read_text().split(MARKER)[0].rstrip()}\n\n{MARKER}\n{generated(name)}")


def generated(name: str) -> str:
    """Everything below the marker of one page."""
    parts = (settings_table(name), published(name), measured(name), mechanisms(name))
    return "\n".join(part for part in parts if part)


def settings_table(name: str) -> str:
    kind = detector_class(name)
    paper, cpu = (flat(plain(kind.presets[preset])) for preset in ("paper", "cpu"))
    notes = comments(kind.settings_type)
    rows = [f"| {key} | {value} | {cpu[key]} | {notes.get(key, '')} |" for key, value in paper.items()]
    head = ["## Settings", "| setting | `paper` | `cpu` | |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows]) + "\n"


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            found[f"{prefix}{key}"] = text
    return found


def comments(settings: type) -> dict[str, str]:
    """The comment behind each field of a settings class."""
    found, lines = {}, inspect.getsource(settings)
    for token in tokenize.generate_tokens(io.StringIO(lines).readline):
        field = re.match(r"\s+(\w+):", token.line)
        if token.type == tokenize.COMMENT and field:
            found[field[1]] = token.string.removeprefix("#").strip().replace("|", "\\|")
    return found


def published(name: str) -> str:
    figures = detector_class(name).info.published
    if not figures:
        return "## Published\nNo figure that can be quoted with confidence.\n"
    lines = [f"| {what} | {value} |" for what, value in figures.items()]
    return (
        "\n".join(["## Published", "The authors' protocol and backbone.", "", "| | |", "| --- | --- |", *lines]) + "\n"
    )


def measured(name: str) -> str:
    rows = [cells(*key.split("/"), entry) for key, entry in sorted(results().items()) if key.split("/")[1] == name]
    if not rows:
        return "## Measured here\nNot measured yet.\n"
    lines = [f"| {' | '.join(c for c, h in zip(row, HEAD, strict=True) if h != 'detector')} |" for row in rows]
    head = [h for h in HEAD if h != "detector"]
    about = "Preset `cpu`, seed 0, test split, two cores ([benchmarks](../../benchmarks/README.md))."
    return (
        "\n".join(["## Measured here", about, "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}", *lines]) + "\n"
    )


def mechanisms(name: str) -> str:
    """Each mechanism on and off, where it was studied."""
    study = read_json(MECHANISMS).get(name) if MECHANISMS.exists() else None
    if not study:
        return ""
    views = sorted(next(iter(study.values())))
    head = [f"| {' | '.join(['changed', *views])} |", f"|{' --- |' * (1 + len(views))}"]
    rows = [f"| {what} | {' | '.join(f'{values[v]:.3f}' for v in views)} |" for what, values in study.items()]
    about = "Image AUROC, seed 0, `python -m benchmarks.mechanisms`."
    return "\n".join(["## Mechanisms", about, "", *head, *rows]) + "\n"


if __name__ == "__main__":
    main()
