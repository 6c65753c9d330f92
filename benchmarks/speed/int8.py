"""The backbone of a finished bundle in 8-bit integers: what it loses and how much sooner it answers.

Run by ``speed.py`` as a file: ``int8.py DATA PICTURES BUNDLE...`` prints a row for each bundle as JSON. A bundle lies
in a run of `loupe fit` or in the artefacts of the pipeline; split and anomalies are found from there, and at most so
many pictures of each kind are looked at. OpenVINO computes the float graph as well, where it is installed.
"""

import importlib
import importlib.util
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from components.core.runtime import session
from components.decision.bundle import Manifest, run_of
from components.decision.seeing import seen
from components.pictures.kept import decode

ROUNDS = 9
# What is measured, by name as in stages.py: export is no room that benchmarks build on.
edge, export = (importlib.import_module(f"components.export.{name}") for name in ("edge", "int8"))


def row(bundle: Path, data: Path, count: int) -> dict[str, Any]:
    """What was measured for one bundle."""
    known, graph = Manifest.read(bundle), bundle / "model.onnx"
    given = material(bundle, data, count)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        nodes = export.quantise(graph, out, given)
        found = export.compared(graph, out, given)[0] if nodes else {}
        sizes = {"float_mb": mb(graph), "int8_mb": mb(out) if nodes else None}
    about = {"detector": known.detector, "view": bundle.parent.parent.name, "pictures": len(given.good), "nodes": nodes}
    return {**about, **sizes, **found, **(openvino(graph, given) if importlib.util.find_spec("openvino") else {})}


def mb(path: Path) -> float:
    return round(path.stat().st_size / 1e6, 2)


def material(bundle: Path, data: Path, count: int) -> Any:
    """The pictures of the split that the bundle was made from."""
    inside = bundle.parent / "work" / "run"
    base = inside if inside.is_dir() else bundle.parent.parent
    normals, made = edge.calibrating(base / "split", data, base / "synthetic")
    return export.Material(normals.paths[::2][:count], normals.paths[:count], made.paths[:count], normals.rules)


def openvino(graph: Path, given: Any) -> dict[str, float]:
    """How much sooner OpenVINO answers than ONNX Runtime in turns on one thread, and how far it is from it."""
    pictures = [decode(given.good[0], rules=given.rules)]
    sides = [run_of(session(graph, 1)), run_of(session(graph, 1, "openvino"))]
    first = [seen(side, pictures, given.rules) for side in sides]
    ratios = []
    for number in range(ROUNDS):
        spent = [0.0, 0.0]
        for side in (0, 1) if number % 2 else (1, 0):
            started = time.process_time()
            seen(sides[side], pictures, given.rules)
            spent[side] = time.process_time() - started
        ratios.append(spent[0] / spent[1])
    apart = float(np.abs(first[0][1] - first[1][1]).max() / max(float(np.ptp(first[0][1])), 1e-12))
    return {"openvino_times_faster": float(np.median(ratios)), "openvino_map_error": apart}


if __name__ == "__main__":
    data, count, *bundles = sys.argv[1:]
    json.dump([row(Path(bundle), Path(data), int(count)) for bundle in bundles], sys.stdout, indent=1)
