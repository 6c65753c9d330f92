"""Where the time goes: the start of every command, and the stages of one fit, beside another checkout in turns.

Seconds of the processor on one thread, by parts: startup (each command that computes nothing, and the help of each),
stages (`loupe fit` on a folder in MVTec layout, by stage, with an evaluation where there is test/). With --against
another checkout of Loupe is measured in the same rounds, the sides in alternating order, and the ratio of both is told
with its 95 % bootstrap interval. Writes results/speed.json and speed.md.
"""

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.results import RESULTS, add, commit, stored
from benchmarks.common.runner import options
from benchmarks.common.tables import joined, markdown, wrapped
from benchmarks.speed.turns import Figures, environment, in_turns, ratio, spent
from components.core.checks import check_known
from components.core.errors import SettingsError

HERE = Path(__file__).parent
OUT = RESULTS / "speed.json"
STARTED = (
    "--help",
    "--version",
    "detectors",
    "doctor",
    "models",
    "cache",
    "data sets",
    "bench",
    "bench more --help",
    "fit --help",
    "score --help",
    "compare --help",
    "frames --help",
    "init --help",
    "dashboard --help",
)
ABOUT = (
    "Seconds of the processor on one thread, {rounds} on a busy machine. *Before*: commit {before}. "
    "*Ratio*: before / now in the same round, median and 95 % interval over rounds; above 1 is sooner now."
)
HEAD = ("what", "now s", "before s", "ratio (95 %)")


def main(arguments: list[str]) -> None:
    parser = options("speed", __doc__, report=True)
    parser.add_argument("--against", type=Path, help="another checkout of Loupe, measured in the same rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="the folder of pictures of the part stages")
    parser.add_argument("--detector", default="patchcore", help="of the part stages")
    parser.add_argument("parts", nargs="*", default=["startup"], metavar="PART", help="startup (default), stages")
    asked = parser.parse_args(arguments)
    for part in [] if asked.report else asked.parts:
        check_known(part, ("startup", "stages"), "loupe bench speed")
        measure = startup if part == "startup" else partial(stages, data=pictures(asked.data), detector=asked.detector)
        sides = {"now": Path()} | ({"before": asked.against} if asked.against else {})
        found = in_turns({name: partial(measure, checkout.resolve()) for name, checkout in sides.items()}, asked.rounds)
        add(OUT, {part: {"commit": commit(), "before": commit_of(asked.against), "rounds": found}})
    OUT.with_suffix(".md").write_text(page(stored(OUT)))


def pictures(folder: Path | None) -> Path:
    """Raises SettingsError where none is named."""
    if folder is None or not folder.is_dir():
        raise SettingsError(f"--data {folder}: is no folder; the part stages needs one in MVTec layout")
    return folder.resolve()


def commit_of(checkout: Path | None) -> str | None:
    if checkout is None:
        return None
    words = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def startup(checkout: Path) -> Figures:
    """Seconds of each command of STARTED, in that checkout."""
    loupe = [sys.executable, "-m", "components.cli"]
    return {words: spent([*loupe, *words.split()], checkout) for words in STARTED}


def stages(checkout: Path, data: Path, detector: str) -> Figures:
    """Seconds of each stage of a fit, by the code of that checkout."""
    with tempfile.TemporaryDirectory() as folder:
        words = [
            str(HERE / "stages.py"),
            detector,
            str(data),
            str(Path(folder) / "run"),
            "evaluated" if (data / "test").is_dir() else "fitted",
        ]
        done = subprocess.run(
            [sys.executable, *words],
            capture_output=True,
            text=True,
            check=True,
            cwd=folder,
            env=environment(PYTHONPATH=str(checkout)),
        )
    found: Figures = json.loads(done.stdout)
    return found | {"all": sum(found.values())}


def page(found: dict[str, Any]) -> str:
    """results/speed.md."""
    parts = [text for name, entry in found.items() for text in (f"## {name}", told(entry), table(entry["rounds"]))]
    return joined("# Where the time goes", *(parts or ["Not measured."]))


def told(entry: dict[str, Any]) -> str:
    return wrapped(ABOUT.format(rounds=said(len(entry["rounds"]["now"])), before=entry["before"] or "not measured"))


def said(rounds: int) -> str:
    return "one round" if rounds == 1 else f"medians of {rounds} rounds"


def table(rounds: dict[str, list[Figures]]) -> str:
    """A row for each thing that was measured."""
    return markdown(HEAD, [line(what, rounds) for what in rounds["now"][0]])


def line(what: str, rounds: dict[str, list[Figures]]) -> list[str]:
    now, before = ([one.get(what, 0.0) for one in rounds.get(side, [])] for side in ("now", "before"))
    if not before:
        return [what, f"{np.median(now):.2f}", "-", "-"]
    return [what, f"{np.median(now):.2f}", f"{np.median(before):.2f}", compared(before, now)]


def compared(before: list[float], now: list[float]) -> str:
    """The ratio, with its interval where there are rounds enough; none of what takes no time to speak of."""
    if min(*now, *before) < 0.01:
        return "-"
    middle, low, high = ratio(before, now)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})" if len(now) > 2 else f"{middle:.2f}"
