"""The graph of a trained model before its operating point is known: what calibrates and is measured goes through it."""

import logging
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor

from components.core.artefacts import read_json, recorded, tree_hash
from components.datasets.loading import read_decoding, read_split, rows
from components.decision.bundle import Manifest
from components.decision.calibration import Calibration
from components.decision.traced import GRAPH, state
from components.detectors.contract import Detector
from components.export.embedding import Described
from components.export.graph import say, write_graph
from components.export.settings import ExportSettings
from components.pictures.decoding import Decoding
from components.training.descriptors import descriptors_of
from components.training.model import load_model

log = logging.getLogger("loupe")


def trace(model: Path, split: Path, data: Path, out: Path, settings: ExportSettings) -> Path:
    """Write the graph of *model* and how it sees pictures to *out*; the parity gate comes with ``export``."""
    detector = load_model(model)
    manifest = manifest_of(model, split, detector.rules(read_decoding(split)))
    inputs = {"model": model / "model.safetensors", "split": split / "split.parquet"}
    with recorded(out, "trace", settings, inputs) as scratch:
        seen = axes(model, detector, split, data, manifest.decoding)
        write_graph(Described(detector, seen).eval(), scratch / GRAPH, settings.opset, texts(identity(manifest)))
        state(scratch, manifest.model, manifest.decoding)
    return out


def axes(model: Path, detector: Detector, split: Path, data: Path, rules: Decoding) -> Tensor:
    """Descriptors of fit normals, which set the axes of the embedding."""
    return descriptors_of(model, detector, [data / name for name in rows(split, "fit", "normal")["image_id"]], rules)


def restated(source: Path, target: Path, said: dict[str, str]) -> None:
    """The graph *source* as *target*, with *said* as all that it says of itself; nothing that computes changes."""
    graph = onnx.load(source)
    say(graph, said)
    onnx.save(graph, str(target))


def manifest_of(model: Path, split: Path, rules: Decoding, provider: str = "cpu") -> Manifest:
    """What the bundle of *model* says of itself, without its files."""
    table = read_split(split)
    return Manifest(
        read_json(model / "settings.json")["detector"],
        str(table["dataset"].iloc[0]),
        ",".join(sorted(set(table["group"]))),
        tree_hash(model / "model.safetensors"),
        tree_hash(split / "split.parquet"),
        rules,
        {},
        provider,
    )


def identity(manifest: Manifest, known: Calibration | None = None) -> dict[str, Any]:
    """What a graph and manifest.json say of themselves, in this order; of the operating point where it is *known*."""
    said = {key: getattr(manifest, key) for key in ("detector", "dataset", "groups", "model", "data")}
    return said if known is None else {**said, "alpha": known.alpha, "threshold": known.threshold}


def texts(said: dict[str, Any]) -> dict[str, str]:
    """*said* as metadata of a graph."""
    return {key: str(value) for key, value in said.items()}
