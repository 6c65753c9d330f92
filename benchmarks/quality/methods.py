"""What was measured of each method, for its page: the half of docs/methods/*.md below the marker.

The list of methods in README.md comes from here too. Settings have the comments that stand beside them in the code;
then follow the authors' figures, and what was measured here.
"""

import inspect
import io
import re
import textwrap
import tokenize
from pathlib import Path
from typing import Any

from benchmarks.common.evidence import CHOICE
from benchmarks.common.fitting import FIT
from benchmarks.common.results import RESULTS, stored
from benchmarks.common.runner import options
from benchmarks.common.tables import WIDTH, joined, markdown, noted, stacked, without, wrapped
from benchmarks.common.views import named
from benchmarks.mechanisms import mechanisms as study
from benchmarks.quality import floor
from benchmarks.quality.table import COST, HEAD, PIXELS, SEEDS_HEAD, Results, rows, seed_rows
from components.core.settings import plain
from components.detectors.catalogue import CATALOGUE, detector_class
from components.detectors.contract import PixelDetector

PAGES = Path("docs/methods")
MARKER = "<!-- Below this line: loupe bench methods -->"
README, LIST, END = Path("README.md"), "<!-- methods: written by loupe bench methods -->", "<!-- end -->"
WEAK = "[findings](../../benchmarks/quality/README.md#findings)"


def main(arguments: list[str]) -> None:
    options("methods", __doc__).parse_args(arguments)
    for name in CATALOGUE:
        page = PAGES / f"{name}.md"
        page.write_text(f"{page.read_text().split(MARKER)[0].rstrip()}\n\n{MARKER}\n{generated(name)}")
    README.write_text(listed(README.read_text()))


def listed(text: str) -> str:
    """*text* with today's methods between the two marks."""
    before, rest = text.split(LIST)
    return f"{before}{LIST}\n{overview()}\n{END}{rest.split(END, 1)[1]}"


def overview() -> str:
    """Every method with its page, by what it learns from."""
    links: dict[bool, list[str]] = {False: [], True: []}
    for name in CATALOGUE:
        kind = detector_class(name)
        links[issubclass(kind, PixelDetector)].append(f"[{kind.info.title}](docs/methods/{name}.md)")
    said = f"- Methods: over frozen features {', '.join(links[False])}; from pixels {', '.join(links[True])}"
    return "\n".join(textwrap.wrap(said, 118, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False))


def generated(name: str) -> str:
    """Everything below the marker of one page."""
    parts = (settings_table(name), published(name), measured(name), floors(name), mechanisms(name))
    return "\n".join(part for part in parts if part)


def settings_table(name: str) -> str:
    kind = detector_class(name)
    paper, cpu = (flat(plain(kind.presets[preset])) for preset in ("paper", "cpu"))
    notes = comments(kind.settings_type)
    lines = [(key, value, cpu[key], notes.get(key, "")) for key, value in paper.items()]
    numbers, below = noted(line[-1] for line in lines if len(" | ".join(line)) > WIDTH - 4)  # 4: of the edges
    table = markdown(
        ("setting", "`paper`", "`cpu`", ""), ((*line[:-1], numbers.get(line[-1], line[-1])) for line in lines)
    )
    return joined(f"## Settings\n{table}", below)


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
    lines = markdown(("", ""), ((what, str(value)) for what, value in figures.items()))
    return f"## Published\nThe authors' protocol and backbone.\n\n{lines}\n"


def measured(name: str, found: Results | None = None) -> str:
    """The method's rows, what its seeds gave, where the time went."""
    own = {key: entry for key, entry in (found or stored(FIT)).items() if named(key)[1] == name}
    if not own:
        clips = "On clips: [video](../../benchmarks/results/video.md) (`loupe bench video`)."
        return f"## Measured here\n{clips if detector_class(name).clips else 'Not measured yet.'}\n"
    about = (
        "Preset `cpu`, test split, one thread ([benchmarks](../../benchmarks/README.md)); what the marks mean stands\n"
        "[with the tables](../../benchmarks/results/fit.md)."
    )
    parts = ["## Measured here\n" + about, _own(HEAD, rows(own, stored(CHOICE)), COST)]
    if several := seed_rows(own):
        parts += ["Over seeds, mean and smallest to largest:", _own(SEEDS_HEAD, several, PIXELS)]
    if spent := shares(own):
        parts += [spent]
    return "\n\n".join(parts) + "\n"


def _own(head: tuple[str, ...], lines: list[list[str]], *cuts: str) -> str:
    """A table of several detectors, of which one is left."""
    return stacked(*without("detector", head, lines), 1, *cuts)


def shares(own: Results) -> str:
    """What the training's time went to, a line per view; of entries that tell it."""
    lines = []
    for key, entry in sorted(own.items()):
        view, _, seed = named(key)
        parts = {k: v for k, v in entry["seconds"].items() if k in ("synthesis", "drawing", "steps", "choosing")}
        if seed or "steps" not in parts:
            continue
        whole = entry["seconds"]["train"]
        parts = {"features": entry["features"]["seconds_spent"], **parts}
        parts["the rest"] = max(0.0, whole - sum(parts.values()))
        lines.append(f"- {view}, {whole:.0f} s: " + ", ".join(f"{k} {v / whole:.0%}" for k, v in parts.items()))
    return (
        "\n".join(["Where the training's time went (the rest: starting, one-pass stages, writing):", *lines])
        if lines
        else ""
    )


def floors(name: str, found: dict[str, Any] | None = None) -> str:
    """The method beside itself untrained and the pixel-mean image, where that was measured."""
    known = stored(RESULTS / "floor.json") if found is None else found
    own = {key: entry for key, entry in known.items() if key.partition("/")[2] == name}
    if not own:
        return ""
    parts = [
        "## Beside itself untrained and the pixel-mean image",
        "Image AUROC; how to read this: [floors](../../benchmarks/results/floor.md).",
        _own(floor.HEAD, floor.lines_of(own)),
    ]
    if any(len(floor.beaten(entry)) < len(floor.FLOORS) for entry in own.values()):
        parts += [wrapped(f"Where it does not beat both, {WEAK} have the reason that was found and what was tried.")]
    return "\n\n".join(parts) + "\n"


def mechanisms(name: str, studies: dict[str, Any] | None = None) -> str:
    """Each mechanism on and off, where it was studied."""
    if studies is None:
        studies = stored(RESULTS / "mechanisms.json").get("studies", {})
    if name not in studies:
        return ""
    parts = ["## Mechanisms", study.schedule(studies[name]), study.table(studies[name])]
    about = "How to read this: [mechanisms](../../benchmarks/results/mechanisms.md)."
    return "\n\n".join([*parts, *sentences(studies[name]), about]) + "\n"


def sentences(found: dict[str, Any]) -> list[str]:
    """Plainly, what does not help here."""
    said = []
    for verdict in ("does not help here", "within the noise"):
        named_so = [f"{row['what']} ({row['view']})" for row in found["rows"] if row["verdict"] == verdict]
        if named_so:
            said.append(wrapped(f"{verdict.capitalize()}: {', '.join(named_so)}."))
    return said
