"""The second graph of a detector that can answer early, and from when on its answer stands."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from components.calibration.exits import Scored, evidence, moved_exits
from components.calibration.settings import CascadeSettings
from components.core.artefacts import write_json
from components.core.progress import progress
from components.core.runtime import session
from components.datasets.loading import read_decoding, rows
from components.decision.bundle import run_of
from components.decision.calibration import Calibration
from components.decision.cascade import Exits, early
from components.decision.seeing import seen
from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.kept import decode

log = logging.getLogger("loupe")


class Grouped(NamedTuple):
    """Image files, the group of each, and how they are decoded."""

    paths: list[Path]
    groups: np.ndarray
    rules: Decoding = DEFAULT


def calibrating(split: Path, data: Path, synthetic: Path) -> tuple[Grouped, Grouped]:
    """The calibrate normals, and the synthetic anomalies on them."""
    table, made = rows(split, "calibrate", "normal"), pd.read_parquet(synthetic / "synthetic.parquet")
    group_of, rules = table.set_index("image_id")["group"], read_decoding(split)
    return (
        Grouped([data / name for name in table["image_id"]], table["group"].to_numpy(), rules),
        Grouped([synthetic / name for name in made["image_id"]], group_of[made["origin"]].to_numpy(), rules),
    )


def write_exits(
    out: Path, known: Calibration, settings: CascadeSettings, normals: Grouped, made: Grouped, provider: str = "cpu"
) -> dict[str, Any]:
    """Write cascade.json beside the two graphs in *out*, by whose own scores it is; returns what it holds."""
    edge = [_scores(out / "edge.onnx", given, "edge graph", provider) for given in (normals, made)]
    full = _scores(out / "model.onnx", made, "full graph", provider)
    kept = evidence(Scored(edge[0], normals.groups), Scored(edge[1], made.groups), full, settings)
    stands = moved_exits({"evidence": kept}, known)
    write_json(out / "cascade.json", stands)
    leave = stands["leave"]
    message = (
        "edge graph: %.0f %% of the normals leave as normal, and %.0f %% of %d synthetic anomalies that would be found"
    )
    log.info(message, 100 * leave["normals"], 100 * (leave["found_synthetic"] or 0), leave["of"])
    return stands


def exit_of(exits: Exits, scores: np.ndarray, groups: list[str]) -> list[str | None]:
    """Which way out each edge score takes, None where the full graph has to answer."""
    return [early(exits.exit_of(group), float(score)) for score, group in zip(scores, groups, strict=True)]


def _scores(graph: Path, given: Grouped, what: str, provider: str) -> np.ndarray:
    run, paths = run_of(session(graph, provider=provider)), progress(given.paths, f"{what} for its way out")
    found = [seen(run, [decode(path, rules=given.rules)], given.rules)[0] for path in paths]
    return np.concatenate(found).astype(np.float64)
