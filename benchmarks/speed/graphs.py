"""What the graph of a model takes: of the first and the second of its kind, and of the third, which takes theirs.

Run by ``speed.py`` as a file: ``graphs.py DATA PRESET DETECTOR...`` prints a row for each detector as JSON: seconds of
the processor of each export, of trainings with other seeds, and whether the third graph has the bytes of one that is
exported anew. The cache is empty before.
"""

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.speed.memory import prepared
from components.core.cache import VARIABLE, clear_graphs
from components.decision.traced import GRAPH

SEEDS = (0, 1, 2)


def rows(data: Path, preset: str, names: list[str]) -> list[dict[str, Any]]:
    """A row for each of *names*."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = str(Path(folder) / "cache")
        sides = [prepared(data, preset, Path(folder) / str(seed), seed) for seed in SEEDS]
        return [row(name, sides) for name in names]


def row(name: str, sides: list[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"detector": name}
    for number, stages in enumerate(sides, 1):
        stages.train(name)
        found[f"s_{number}"] = exported(stages, name)
    graph = sides[-1].of(name) / "graph" / GRAPH
    reused = graph.read_bytes()
    clear_graphs()
    found["s_anew"] = exported(sides[-1], name)
    found["times_faster"] = found["s_anew"] / found[f"s_{len(sides)}"]
    found["same"] = "yes" if graph.read_bytes() == reused else "no"
    sys.stderr.write(f"{found}\n")
    return found


def exported(stages: Any, name: str) -> float:
    """Seconds of the processor."""
    started = time.process_time()
    stages.trace(name)
    return time.process_time() - started


if __name__ == "__main__":
    given, preset, *names = sys.argv[1:]
    json.dump(rows(Path(given), preset, names), sys.stdout)
