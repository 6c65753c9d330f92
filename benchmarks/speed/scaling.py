"""How time and memory of a fit and of a scoring grow with the pictures and with the input size.

Run by ``speed.py`` as a file: ``scaling.py DATA DETECTOR PICTURES`` prints a row for each run as JSON. A fit is `loupe
fit` at 256 pixels on 1, 2, 4 and 8 times PICTURES good pictures of DATA, and on PICTURES at every other side; a
scoring is `loupe score` of the pictures that it learned from. Each is a process of its own on one thread with an empty
cache; memory is its peak.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.speed.turns import environment
from components.core.errors import SettingsError
from components.pictures.decoding import SUFFIXES

TIMES, SIDES = (1, 2, 4, 8), (256, 384, 512, 768, 1024)
ALPHA = "0.2"  # few pictures calibrate
KEYS = ("fit_s", "fit_mb", "score_s", "score_mb")


class Run(NamedTuple):
    """So many pictures at such a side."""

    pictures: int
    side: int


def runs(pictures: int) -> list[Run]:
    """All that are measured: the pictures grow at the first side, the side grows with the fewest pictures."""
    return [*(Run(pictures * times, SIDES[0]) for times in TIMES), *(Run(pictures, side) for side in SIDES[1:])]


def good(data: Path, count: int) -> list[Path]:
    """Good pictures of a folder in MVTec layout, *count* of them. Raises SettingsError where there are fewer."""
    found = sorted(path for path in (data / "train" / "good").iterdir() if path.suffix.lower() in SUFFIXES)
    if len(found) < count:
        raise SettingsError(f"--data {data}: train/good has {len(found)} pictures, and {count} are needed")
    return found[:count]


def spent(words: Sequence[str], cache: Path) -> tuple[float, float]:
    """Seconds of the processor and peak MiB of a command; raises CalledProcessError if it fails."""
    process = subprocess.Popen(words, env=environment(LOUPE_CACHE=str(cache)), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words)
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def measured(run: Run, detector: str, paths: list[Path]) -> dict[str, Any]:
    """A row: seconds and MiB of the fit and of the scoring."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        kept = here / "data" / "train" / "good"
        kept.mkdir(parents=True)
        for path in paths[: run.pictures]:
            shutil.copy(path, kept)
        loupe = [sys.executable, "-m", "components.cli"]
        fit, score = (spent([*loupe, *words], here / "cache") for words in commands(run, detector, here))
    return run._asdict() | dict(zip(KEYS, (*fit, *score), strict=True))


def commands(run: Run, detector: str, here: Path) -> tuple[list[str], list[str]]:
    """What is asked of `loupe`: to fit the pictures in *here*, and to score them."""
    fit = ["fit", detector, "--data", str(here / "data"), "--out", str(here / "run")]
    score = ["score", str(here / "run" / "bundle"), str(here / "data"), "--out", str(here / "scores.csv")]
    return [*fit, "--size", str(run.side), "--alpha", ALPHA], score


def exponents(rows: Sequence[dict[str, Any]], by: str) -> dict[str, float]:
    """The power of *by* with which each figure grows: the slope of a straight line through the logarithms."""
    grown = np.log([row[by] for row in rows])
    return {key: float(np.polyfit(grown, np.log([row[key] for row in rows]), 1)[0]) for key in KEYS}


def told(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The rows, and behind them the exponents by pictures and by pixels."""
    yield from rows
    first = rows[0]
    by_pictures = [row for row in rows if row["side"] == first["side"]]
    by_side = [row for row in rows if row["pictures"] == first["pictures"]]
    yield {"pictures": "exponent", "side": "", **exponents(by_pictures, "pictures")}
    yield {"pictures": "", "side": "exponent", **exponents(by_side, "side")}


if __name__ == "__main__":
    data, detector, base = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    asked = runs(base)
    paths = good(data, max(run.pictures for run in asked))
    json.dump(list(told([measured(run, detector, paths) for run in asked])), sys.stdout, indent=1)
