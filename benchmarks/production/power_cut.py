"""How long the production loop takes to go on after a power cut in a retraining (about a quarter of an hour).

Polycrystalline cells arrive at a champion of monocrystalline ones, as in ``loupe bench demo_drift``. While the
retraining that follows trains, every process of the stack is killed with SIGKILL, server and worker among them; then
the stack is started again and nothing else is done by hand. Writes how long it took until that training went on and
until its decision, and how often its event was sent, to results/power_cut.json. The store is a folder: the stand-in
for S3 lives in memory.
"""

import json
import os
import time
from pathlib import Path

import psutil

from benchmarks.common import project
from benchmarks.common.results import RESULTS
from benchmarks.common.runner import options, tell
from benchmarks.common.stack import ROOT, Stack
from benchmarks.production.demo_drift import CLEAN, CONFIG, INTERVALS, MODEL, Cells, decision_of, feed, say, until
from components.core.artefacts import write_json
from components.datasets.versions import checkout
from components.monitoring.monitor import SENT
from components.storage import open_store

OUT = RESULTS / "power_cut.json"
SHIFT = 4000
AGAIN = 0.05  # hours until the event is sent again, in place of six


def main(arguments: list[str]) -> None:
    parser = options("power_cut", __doc__)
    parser.add_argument("--project", type=Path, default=ROOT / "runs" / "power-cut")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)
    os.chdir(ROOT)
    cells, folder = Cells(checkout("elpv").resolve(), asked.seed), asked.project.resolve()
    config = CONFIG | {"monitor": {"settle_seconds": 5.0, "again_hours": AGAIN}}
    project.make(folder, MODEL, cells.paths(cells.train), config)
    result = {"seed": asked.seed} | cut_off(folder, cells)
    write_json(OUT, result)
    tell(result, indent=1)


def cut_off(folder: Path, cells: Cells) -> dict[str, object]:
    """Drift, a cut in the training that it asks for, and what happens after the second start."""
    stack = up(folder)
    try:
        feed(stack.service_port(), cells.paths(cells.clean), CLEAN)
        until("a retraining trains", trainings)
        kill(stack)
        assert not trainings()
        stack, began = up(folder), time.monotonic()
        until("it trains again", trainings)
        trains = time.monotonic() - began
        outcome = until("decision", lambda: decision_of(CLEAN))
        return {
            "seconds_until_training": round(trains),
            "seconds_until_decision": round(time.monotonic() - began),
            "action": outcome.action,
            "reasons": outcome.reasons,
            "events": events(),
        }
    finally:
        stack.down()


def up(folder: Path) -> Stack:
    stack = Stack(folder, SHIFT)
    stack.up(MODEL, INTERVALS, store=folder / "store")
    return stack


def trainings() -> list[psutil.Process]:
    """Training stages of this stack's project."""
    found = [(p, p.info["cmdline"] or []) for p in psutil.process_iter(["cmdline"])]
    return [
        p
        for p, words in found
        if "components.pipeline.stages" in words and "train" in words and f"{MODEL}-live" in words
    ]


def kill(stack: Stack) -> None:
    roots = [psutil.Process(note["pid"]) for note in stack.processes().values()]
    processes = [p for root in roots for p in (*root.children(recursive=True), root)]
    for process in processes:
        process.kill()
    psutil.wait_procs(processes, timeout=10)
    say(f"{len(processes)} processes killed")


def events() -> list[int]:
    """How often the event of each verdict was sent."""
    store = open_store(os.environ["LOUPE_STORE"])
    return [json.loads(store.get(key))["times"] for key in store.keys(f"{SENT}/")]
