"""Predicted and real peak memory of trainings, each in a process of its own that was forked when all was loaded.

Run by ``speed.py`` as a file: ``memory.py DATA PRESET DETECTOR...`` prints a row for each detector as JSON. Real is the
largest resident set (VmHWM, set back before each step) less that of the loaded process.
"""

import importlib
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

LOADED = (  # before the forks
    "components.calibration.calibrate",
    "components.export.export",
    "components.training.memory",
    "components.training.train",
)
ALPHA = 0.2  # few pictures calibrate


def resident() -> int:
    """MiB now."""
    return _status("VmRSS")


def peak(call: Callable[[], Any]) -> int:
    """MiB that *call* takes at its peak, on top of what is resident before."""
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    before = resident()
    call()
    return _status("VmHWM") - before


def _status(key: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines[key].split()[0]) // 1024


def alone(call: Callable[[], Any]) -> Any:
    """What *call* returns in a forked process: what it frees helps nobody after it."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=lambda: theirs.send(call()))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def rows(data: Path, preset: str, names: list[str], export: bool) -> list[dict[str, Any]]:
    """A row for each of *names*: predicted and real MiB of its training, and of its export where that is asked for."""
    for module in LOADED:
        importlib.import_module(module)
    with tempfile.TemporaryDirectory() as folder:
        stages = prepared(data, preset, Path(folder))
        return [alone(lambda name=name: told(stages, name, export)) for name in names]  # type: ignore[misc]


def prepared(data: Path, preset: str, folder: Path, seed: int = 0) -> Any:
    """The stages of a fit in *folder*, up to the training."""
    from components.pipeline.fit import FitRequest, stages_of

    stages = stages_of(FitRequest("patchcore", data, preset=preset, alpha=ALPHA, seed=seed), folder)
    for step in (stages.manifest, stages.validate, stages.split, stages.synthesise):
        step()
    return stages


def told(stages: Any, name: str, export: bool) -> dict[str, Any]:
    from components.datasets.loading import read_split
    from components.pipeline.foresight import largest, need

    found = alone(lambda: need(stages, name))
    real = peak(lambda: stages.train(name))
    more = {}
    if export:
        stages.calibrate(name)
        more = {"export": found.export, "real_export": peak(lambda: stages.export(name))}
    sys.stderr.write(f"{name}: {found}, real {real} {more}\n")
    return {
        "detector": name,
        "preset": stages.params.train.preset,
        "pictures": found.pictures,
        "megapixels": round(largest(read_split(stages.folder / "split")) / 1e6, 2),
        "phase": found.phase,
        "predicted": found.training + found.mapped,
        "real": real,
        **more,
    }


if __name__ == "__main__":
    data, preset, export, *names = sys.argv[1:]
    json.dump(rows(Path(data), preset, names, export == "export"), sys.stdout)
