"""Fit and evaluate detectors on the real sets: ``python -m benchmarks.fit [VIEW/DETECTOR ...]``.

Each fit is ``loupe fit`` in a process of its own, preset cpu, seed 0, with the feature store emptied before, so that
its time and peak memory stand for a first fit. Figures go to benchmarks/results/fit.json, one entry per view and
detector; evaluation is on the test split, whose labels choose nothing.
"""

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from components.artefacts import git_commit, read_json, write_json

VIEWS = {
    "mtd": ["data/mtd", "--adapter", "mtd"],
    "screw": ["data/mvtec_ad_screw"],
    "elpv-mono": ["data/elpv", "--adapter", "elpv", "--group", "mono"],
    "elpv-poly": ["data/elpv", "--adapter", "elpv", "--group", "poly"],
}
DETECTORS = ("patchcore", "fastflow")
RESULTS = Path(__file__).parent / "results" / "fit.json"


def main(chosen: list[str]) -> None:
    for name in chosen or [f"{v}/{d}" for d in DETECTORS for v in VIEWS]:
        view, detector = name.split("/")
        results = read_json(RESULTS) if RESULTS.exists() else {}
        write_json(RESULTS, results | {name: measured(view, detector)})


def measured(view: str, detector: str) -> dict[str, object]:
    shutil.rmtree(".cache/features", ignore_errors=True)
    run = Path("runs") / "benchmark" / view / detector
    shutil.rmtree(run, ignore_errors=True)
    fit_seconds, peak = timed("fit", detector, "--data", *VIEWS[view], "--out", str(run))
    evaluate_seconds, _ = timed("evaluate", str(run), "--data", VIEWS[view][0])
    metrics = read_json(run / "evaluation" / "metrics.json")
    made = run / "work" / "run" / detector
    return {
        "overall": metrics["overall"],
        "split": metrics["split"],
        "seed": 0,
        "preset": "cpu",
        "seconds": {
            "whole fit command": fit_seconds,
            "train": read_json(made / "model" / "timing.json")["seconds"],
            "of that features": round(read_json(made / "model" / "timing.json")["features"]["seconds_spent"], 1),
            "evaluate command": evaluate_seconds,
        },
        "peak_memory_mb": peak,
        "near_duplicate_pairs": read_json(run / "work/run/split/split.json")["near_duplicate_pairs"],
        "history": read_json(run / "model" / "history.json"),
        "load_before": os.getloadavg()[0],
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, no GPU",
        "commit": git_commit(),
    }


def timed(*arguments: str) -> tuple[float, int]:
    """Seconds and peak resident MiB of one command."""
    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "components.cli", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"loupe {' '.join(arguments)} failed")
    return round(time.perf_counter() - started, 1), usage.ru_maxrss // 1024


if __name__ == "__main__":
    main(sys.argv[1:])
