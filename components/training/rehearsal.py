"""How long a training would take, by a few steps of each phase, and the epochs that a limit of time has room for.

The number of epochs is fixed before the training begins and kept beside it: what comes out is a function of settings
that are written down, not of the clock, and a killed training goes on with the same number.
"""

import functools
import logging
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from components.core.artefacts import read_json, write_json
from components.detectors.contract import Detector, OnePass, Optimise
from components.detectors.presets import counts, lengthened
from components.training.checkpoint import Checkpoint
from components.training.loop import Checks, Loop, Select, drawn_order, learning
from components.training.ranks import ALONE, Ranks

log = logging.getLogger("loupe")
STEPS = 8  # of each phase; the later half is timed
SHARE = 0.9  # of the minutes; the rest is for calibration and export


class Rehearsal(Loop):
    """Runs what is closed form, and of what is optimised the first steps; ``moving`` and ``fixed`` are seconds."""

    def __init__(
        self,
        detector: Detector,
        select: Select,
        folder: Path,
        fabric: Fabric,
        checks: Checks,
        ranks: Ranks = ALONE,
    ) -> None:
        super().__init__(detector, select, Checkpoint(folder, ""), 0, float("inf"), fabric, checks=checks, ranks=ranks)
        self.moving = self.fixed = 0.0  # of all steps, which fewer epochs would cut; of all else

    def _fit(self, phase: OnePass) -> None:
        self.fixed += timed(lambda: super(Rehearsal, self)._fit(phase))

    def _optimise(self, phase: Optimise) -> None:
        order = drawn_order(phase.table, self._generator(phase, 0))
        batches = [order[start : start + phase.batch_size] for start in range(0, len(order), phase.batch_size)]
        optimisers, average = self._optimisers(phase), self._average(phase)
        with learning(self.detector, phase):
            took = [
                timed(functools.partial(self._step, phase, optimisers, average, rows, 0.0)) for rows in batches[:STEPS]
            ]
        self.moving += phase.epochs * len(batches) * statistics.median(took[len(took) // 2 :])
        if phase.select:
            self.fixed += min(self.checks.most, phase.epochs) * timed(self._chosen)
        self.history.append({"phase": phase.name, "epoch": 0})


def timed(call: Callable[[], Any]) -> float:
    """Seconds that *call* takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def times_in(minutes: float, moving: float, fixed: float) -> float:
    """By how much epochs are to be cut so that *moving* and *fixed* seconds fit; 1.0 where they do."""
    return min(1.0, max(0.0, 60 * SHARE * minutes - fixed) / moving) if moving else 1.0


def within(
    minutes: float, settings: Any, rehearse: Callable[[], Rehearsal], kept: Path, asked: str, ranks: Ranks = ALONE
) -> Any:
    """*settings* with the epochs that *minutes* have room for; what was measured once for *asked* is read in *kept*."""
    if not counts(settings):
        return settings
    known = ranks.first(read_json(kept) if kept.exists() else {})
    if known.get("asked") != asked:
        played = rehearse()
        known = ranks.first({"asked": asked, "moving": played.moving, "fixed": played.fixed})
        if ranks.writes:
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(kept, known)
    times = times_in(minutes, known["moving"], known["fixed"])
    found = lengthened(settings, times) if times < 1 else settings
    log.info(
        "about %.1f minutes as the preset says, %g may be: %s",
        (known["moving"] + known["fixed"]) / 60,
        minutes,
        ", ".join(f"{name} {getattr(found, name)}" for name in counts(found)),
    )
    return found
