"""Two sides measured in turns: seconds of the processor, and their ratio with an interval.

Another program on the machine slows both sides of a round alike, so ratios stay where seconds move. Which side begins
changes with every round.
"""

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
Figures = dict[str, float]  # seconds of the processor by what they were spent on
RESAMPLES = 2000


def environment(**more: str) -> dict[str, str]:
    """That of this process, on one thread, without a folder of modules that it was given."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | ONE_THREAD | more


def spent(words: Sequence[str], folder: Path) -> float:
    """Seconds of the processor that a command took, with all that it started, in *folder*; its output is dropped.

    A refusal is an answer, too: the exit status is not looked at.
    """
    return timed(words, folder)["processor"]


def timed(words: Sequence[str], folder: Path, among: Mapping[str, str] | None = None) -> Figures:
    """Seconds of the clock and of the processor that a command took, as ``spent``; *among* is its environment."""
    started, quiet = time.perf_counter(), subprocess.DEVNULL
    process = subprocess.Popen(words, cwd=folder, env=among or environment(), stdout=quiet, stderr=quiet)
    _, _, usage = os.wait4(process.pid, 0)
    process.returncode = 0
    return {"clock": time.perf_counter() - started, "processor": usage.ru_utime + usage.ru_stime}


def in_turns(sides: Mapping[str, Callable[[], Figures]], rounds: int) -> dict[str, list[Figures]]:
    """Each side measured once a round, the other one first in every second round."""
    found: dict[str, list[Figures]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides) if number % 2 == 0 else reversed(list(sides)):
            found[name].append(sides[name]())
    return found


def ratio(before: Sequence[float], now: Sequence[float]) -> tuple[float, float, float]:
    """The median over rounds of before / now, and its 95 % bootstrap interval: 2 is twice as fast."""
    each = np.asarray(before) / np.asarray(now)
    drawn = np.random.default_rng(0).integers(len(each), size=(RESAMPLES, len(each)))
    low, high = np.quantile(np.median(each[drawn], axis=1), [0.025, 0.975])
    return float(np.median(each)), float(low), float(high)


def clocked(call: Callable[[], object]) -> Callable[[], Figures]:
    """*call* as a side of ``in_turns``: seconds of this process, as ``s``."""

    def side() -> Figures:
        started = time.process_time()
        call()
        return {"s": time.process_time() - started}

    return side
