"""The second graph of a detector that can answer early, and from when on its answer stands."""

from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from components.artefacts import write_json
from components.calibration.cascade import CascadeSettings, early, exits
from components.calibration.conformal import of_group
from components.datasets.loading import rows
from components.decoding import decode
from components.detectors.contract import Detector, Scores
from components.export.embedding import Described, described
from components.export.graph import write_graph
from components.progress import progress
from components.runtime import session
from components.scoring.batch import tensor


def write_edge(
    described: Described,
    split: Path,
    data: Path,
    out: Path,
    known: dict[str, Any],
    settings: CascadeSettings,
    opset: int,
    metadata: dict[str, str],
) -> dict[str, Any]:
    """Write edge.onnx and cascade.json into *out*; returns what the latter holds.

    Its tables are of the exported graph's own scores of the calibrate normals.
    """
    write_graph(described, out / "edge.onnx", opset, {**metadata, "graph": "edge"})
    table = rows(split, "calibrate", "normal")
    scores = _scores(out / "edge.onnx", [data / name for name in table["image_id"]])
    found = exits(scores, table["group"].to_numpy(), known, settings)
    write_json(out / "cascade.json", found)
    return found


def early_answer(detector: Detector, images: Tensor) -> Scores:
    """What edge.onnx must answer to *images*, from torch."""
    return described(detector, images, early=True)[0]


def exit_of(stands: dict[str, Any], scores: np.ndarray, groups: list[str]) -> list[str | None]:
    """Which way out each edge score takes, None where the full graph has to answer."""
    return [early(of_group(stands, group), float(score)) for score, group in zip(scores, groups, strict=True)]


def _scores(graph: Path, paths: list[Path]) -> np.ndarray:
    opened = session(graph)
    given = (tensor(decode(path, str(path)))[None] for path in progress(paths, "edge graph on calibrate normals"))
    return np.concatenate([opened.run(["score"], {"image": image})[0] for image in given]).astype(np.float64)
