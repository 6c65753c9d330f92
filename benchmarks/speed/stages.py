"""One fit in this process, with the seconds of the processor that each of its stages took.

Run by ``speed.py`` as a file, with the checkout that is measured on ``PYTHONPATH``: it uses nothing but that checkout.
A stage begins where ``loupe fit`` says so in its log.
"""

import importlib
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

FIRST = ("manifest", "validate", "split", "synthesise")
STEPS = (*FIRST, "train", "combine", "trace", "calibrate", "calibrate_member", "export", "evaluate")
ALPHA = 0.2  # few pictures calibrate
LOADED = (  # what the stages load, counted by itself
    "components.calibration.calibrate",
    "components.datasets.splits",
    "components.evaluation.evaluate",
    "components.export.export",
    "components.report.run",
    "components.synthesis.synthesise",
    "components.training.train",
)
REST = "report and the rest"


def busy() -> float:
    """Seconds of the processor so far, of this process and of those that it started and waited for."""
    return sum(os.times()[:4])


class Clock(logging.Handler):
    """Hears which stage begins and puts the seconds since then to the one before."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self.out, self.found, self.stage, self.since = f"{out}: ", dict[str, float](), "imports", 0.0

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage()
        name = said.removeprefix(self.out).split(" ")[0]
        if said.startswith(self.out) and name in STEPS:
            self.next(name)

    def next(self, stage: str) -> None:
        now = busy()
        self.found[self.stage] = self.found.get(self.stage, 0.0) + now - self.since
        self.stage, self.since = stage, now


def measured(
    detector: str,
    data: Path,
    out: Path,
    evaluated: bool,
    overrides: dict[str, Any],
    sections: dict[str, Any],
    size: int | str = 256,
) -> dict[str, float]:
    """Seconds by stage of a fit, and of an evaluation behind it."""
    clock = Clock(out)
    log = logging.getLogger("loupe")
    log.addHandler(clock)
    log.setLevel(logging.INFO)
    for name in LOADED:
        importlib.import_module(name)
    from components.detectors.catalogue import create, settings_for
    from components.pipeline.fit import EvaluateRequest, FitRequest, evaluate_run, fit_folder

    create(detector, settings_for(detector), pretrained=False)  # what a method imports
    clock.next("what is before the first stage")
    asked = FitRequest(detector, data, size=size, alpha=ALPHA, overrides=overrides, sections=sections)
    fit_folder(asked, out)
    clock.next(REST)
    if evaluated:
        clock.next("evaluate")
        evaluate_run(EvaluateRequest(out, data), out / "evaluation")
    clock.next("end")
    return clock.found


if __name__ == "__main__":
    detector, data, out, evaluated, *more = sys.argv[1:]
    given = (json.loads(words) for words in (more + ["{}", "{}", "256"][len(more) :]))
    json.dump(measured(detector, Path(data), Path(out), evaluated == "evaluated", *given), sys.stdout)
