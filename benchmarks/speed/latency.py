"""What a finished bundle's graph takes for a picture, beside its bare backbone in the same runtime, in turns.

Run by ``speed.py`` as a file: ``latency.py DATA ROUNDS BUNDLE...`` prints a row for each bundle as JSON. The bare
backbone is the part of the graph from the picture to the last values that a frozen network gives on: the same nodes,
weights and resizing. One thread, seconds of the processor, batches of 1 and 16 of one picture of DATA's size.
"""

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.utils

from benchmarks.speed.turns import clocked, in_turns, ratio
from components.core.runtime import session
from components.decision.bundle import Manifest
from components.decision.seeing import tensor
from components.pictures.decoding import SUFFIXES
from components.pictures.kept import decode

BATCHES = (1, 16)
OWN = "backbone."  # in the name of a frozen network's weights in the graph


def cut(graph: Path, out: Path) -> bool:
    """Write the part of *graph* that ends where its frozen networks do; False where it has none."""
    nodes = list(onnx.load(graph).graph.node)
    frozen = [number for number, node in enumerate(nodes) if any(OWN in name for name in node.input)]
    last = [number for number in frozen if not any(other in frozen for other in behind(nodes, number))]
    if last:
        ends = [name for number in last for name in nodes[number].output]
        onnx.utils.extract_model(str(graph), str(out), ["image"], ends)
    return bool(last)


def behind(nodes: list[Any], number: int) -> Iterator[int]:
    """The nodes that are computed from what node *number* gives; a graph is in the order of its computation."""
    reached = set(nodes[number].output)
    for other in range(number + 1, len(nodes)):
        if reached & set(nodes[other].input):
            reached |= set(nodes[other].output)
            yield other


def timed(opened: Sequence[Any], images: np.ndarray, rounds: int) -> list[list[float]]:
    """Seconds of each session in each round; each runs once before."""
    runs = [partial(side.run, None, {"image": images}) for side in opened]
    for run in runs:
        run()
    found = in_turns({str(number): clocked(run) for number, run in enumerate(runs)}, rounds)
    return [[figure["s"] for figure in side] for side in found.values()]


def row(bundle: Path, picture: Path, rounds: int) -> dict[str, Any]:
    """Milliseconds a picture, and times the bare backbone with its interval, by batch."""
    known, graph = Manifest.read(bundle), bundle / "model.onnx"
    pixels = decode(picture, rules=known.decoding)
    found: dict[str, Any] = {"detector": known.detector, "pixels": f"{pixels.shape[1]} x {pixels.shape[0]}"}
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder) / "bare.onnx"
        sides = [session(graph, 1), *([session(bare, 1)] if cut(graph, bare) else [])]
        for batch in BATCHES:
            times = timed(sides, np.stack([tensor(pixels)] * batch), rounds)
            found |= figures(times, batch)
    return found


def figures(times: list[list[float]], batch: int) -> dict[str, float]:
    """Of one batch; without a frozen network there is no ratio."""
    told = {f"ms_{batch}": 1000 * float(np.median(times[0])) / batch}
    if len(times) > 1:
        told |= dict(zip((f"times_{batch}", f"low_{batch}", f"high_{batch}"), ratio(*times), strict=True))
    return told


if __name__ == "__main__":
    data, rounds, *bundles = sys.argv[1:]
    first = min(path for path in Path(data).rglob("*") if path.suffix.lower() in SUFFIXES)
    json.dump([row(Path(bundle), first, int(rounds)) for bundle in bundles], sys.stdout, indent=1)
