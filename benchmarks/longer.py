"""What more epochs would buy: ``python -m benchmarks.longer [--times N] [--jobs N] [DETECTOR ...]``.

UniAD and SIVT on screw, seed 0: preset ``cpu`` with its own epochs and with *times* as many. The epoch is chosen by
synthetic anomalies as in any training; test labels are read once, at the end. Each training is a process on one thread
and is stored at once. Writes results/longer.json (test AUROC, and synthetic AUROC by epoch) and results/longer.png.
"""

import argparse
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from matplotlib import pyplot as plt

from benchmarks.fit import prepare
from benchmarks.variant import KEPT, View, figures, trained
from components.artefacts import git_commit, read_json, write_json
from components.detectors import create, settings_for
from components.runtime import keep_freed_memory
from components.training.select import SyntheticAUROC

VIEW, DETECTORS = "screw", ("sivt", "uniad")
RESULTS = Path(__file__).parent / "results"
LOCK = threading.Lock()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.longer")
    parser.add_argument("--times", type=int, default=6)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="one training in this process")
    parser.add_argument("detectors", nargs="*", default=DETECTORS)
    asked = parser.parse_args(arguments)
    if asked.epochs:
        run(asked.detectors[0], asked.epochs)
        return
    view = View.of(VIEW)
    if not (view.split.exists() and view.synthetic.exists()):
        prepare(VIEW, 0)
    wanted = [(d, n * settings_for(d, "cpu").epochs) for n in (1, asked.times) for d in asked.detectors]
    with ThreadPoolExecutor(asked.jobs) as pool:
        list(pool.map(lambda pair: record(*pair), wanted))
    draw(read_json(RESULTS / "longer.json"))


def record(detector: str, epochs: int) -> None:
    """One training in a process of its own; its entry goes to results/longer.json."""
    KEPT.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "benchmarks.longer", "--epochs", str(epochs), detector]
    with (KEPT / "longer.log").open("a") as log:
        done = subprocess.run(command, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        sys.stderr.write(f"{detector}, {epochs} epochs: exit {done.returncode}, see {KEPT}/longer.log\n")
        return
    entry, path = read_json(_made(detector, epochs)), RESULTS / "longer.json"
    with LOCK:
        known = read_json(path) if path.exists() else {}
        write_json(path, known | {detector: {**known.get(detector, {}), str(epochs): entry}})
    sys.stderr.write(f"{detector}, {epochs} epochs: image AUROC {entry['test']['auroc']:.3f}\n")


def _made(detector: str, epochs: int) -> Path:
    return KEPT / f"longer-{detector}-{epochs}.json"


def run(detector: str, epochs: int) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    view, started = View.of(VIEW), time.process_time()
    torch.manual_seed(0)
    made = create(detector, settings_for(detector, "cpu", {"epochs": epochs}))
    loop = trained(made, view.fit(), 0, SyntheticAUROC(view.check()))
    seconds = round(time.process_time() - started, 1)
    test, _ = figures(made, made.inputs(view.test()), view)
    about = {"view": VIEW, "seconds": seconds, "commit": git_commit()}
    write_json(_made(detector, epochs), {"test": test, "history": loop.history, **about})


def draw(found: dict[str, Any]) -> None:
    """Synthetic AUROC by epoch, one panel per method; the legend says what the chosen epoch has on the test split."""
    figure, axes = plt.subplots(1, len(found), figsize=(4.2 * len(found), 3.2), layout="constrained", squeeze=False)
    for axis, (name, runs) in zip(axes.flat, sorted(found.items()), strict=True):
        for epochs, entry in sorted(runs.items(), key=lambda pair: int(pair[0])):
            trained_epochs = [r for r in entry["history"] if "loss" in r]
            checked = [(e, r["synthetic_auroc"]) for e, r in enumerate(trained_epochs, 1) if "synthetic_auroc" in r]
            low, high = entry["test"]["interval"]
            text = f"{epochs} epochs: test {entry['test']['auroc']:.3f} ({low:.3f} to {high:.3f})"
            axis.plot(*zip(*checked, strict=True), marker=".", label=text)
        axis.set(title=f"{name}, {VIEW}", xlabel="epoch", ylabel="image AUROC on synthetic anomalies")
        axis.legend(fontsize=7)
    figure.savefig(RESULTS / "longer.png", dpi=90, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    main(sys.argv[1:])
