"""The export component: a trained, calibrated detector -> the bundle that a line computer runs."""

import logging
import shutil
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from components.core.artefacts import file_hash, read_json, recorded, tree_hash, write_json
from components.core.errors import BundleError, ParityError
from components.core.settings import plain
from components.datasets.loading import read_decoding, read_split, rows
from components.decision.conformal import judge
from components.export.settings import ExportSettings

log = logging.getLogger("loupe")
T = TypeVar("T")
RUNNER = Path(__file__).with_name("runner.py")
DECODER = Path(__file__).parents[1] / "pictures" / "decoding.py"


def export(
    model: Path, calibration: Path, split: Path, synthetic: Path, data: Path, out: Path, settings: ExportSettings
) -> Path:
    """Write the bundle; the anomalies of *synthetic* bound what an edge graph lets out.

    Raises ParityError, with parity.json beside *out*, when the graph scores otherwise.
    """
    from components.decision.bundle import Bundle
    from components.detectors.contract import Early
    from components.export.card import model_card
    from components.export.edge import calibrating, early_answer, exit_of, write_exits
    from components.export.embedding import Described, descriptors
    from components.export.graph import write_graph
    from components.export.parity import compare
    from components.export.reference import write_reference
    from components.training.model import load_model

    detector, known = load_model(model), read_json(calibration / "calibration.json")
    rules = read_decoding(split)
    identity = _identity(model, split, known)
    if known["model"] != identity["model"]:
        raise BundleError(f"{calibration}: is of another model than {model}; calibrate again, then export")
    compared = _sample(split, data, synthetic, settings.parity_images)
    names, groups, paths = (list(compared[column]) for column in ("image_id", "group", "path"))
    inputs = {"model": model / "model.safetensors", "calibration": calibration / "calibration.json",
              "split": split / "split.parquet"}  # fmt: skip
    if isinstance(detector, Early) or "synthetic" in set(compared["split"]):
        inputs["synthetic"] = synthetic / "synthetic.parquet"
    with recorded(out, "export", settings, inputs) as scratch:
        good = [data / n for n in _evenly(list(rows(split, "fit", "normal")["image_id"]), settings.described_images)]
        seen, metadata = descriptors(detector, good, rules), {k: str(v) for k, v in identity.items()}
        write_graph(Described(detector, seen).eval(), scratch / "model.onnx", settings.opset, metadata)
        decisions = partial(_decisions, known)
        parity = compare(detector, scratch / "model.onnx", paths, names, decisions, groups, settings.tolerance, rules)
        parity["sides"] = {str(side): int(n) for side, n in compared["split"].value_counts().sort_index().items()}
        _gate(parity, settings, out)
        if isinstance(detector, Early):
            quick = Described(detector, seen, early=True).eval()
            write_graph(quick, scratch / "edge.onnx", settings.opset, {**metadata, "graph": "edge"})
            stands = write_exits(scratch, known, settings.cascade, *calibrating(split, data, synthetic))
            exits, quick_answer = partial(exit_of, stands), partial(early_answer, detector)
            parity["edge"] = compare(
                quick_answer, scratch / "edge.onnx", paths, names, exits, groups, settings.tolerance, rules
            )
            _gate(parity["edge"], settings, out, "edge graph")
            parity["edge"]["leave"] = stands["leave"]
        write_json(scratch / "parity.json", {**parity, "tolerance": settings.tolerance})
        shutil.copy2(calibration / "calibration.json", scratch / "calibration.json")
        write_runner(scratch)
        bundle = Bundle(scratch, {**identity, "decoding": plain(rules)}, None)
        write_reference(
            bundle, data, list(rows(split, "calibrate", "normal")["image_id"]), scratch / "reference.parquet"
        )
        (scratch / "MODEL_CARD.md").write_text(model_card(detector, identity, known, parity))
        files = {p.name: file_hash(p) for p in sorted(scratch.iterdir())}
        write_json(scratch / "manifest.json", {**identity, "decoding": plain(rules), "files": files})
    log.info("%s: score error %.1e, map error %.1e", out, parity["score_error"], parity["map_error"])
    return out


def _decisions(known: dict[str, Any], scores: np.ndarray, groups: list[str]) -> list[str]:
    return judge(known, scores, groups)[1]


def write_runner(out: Path) -> None:
    """runner.py, and the decoder of this very version beside it, which needs nothing of Loupe there."""
    shutil.copy2(RUNNER, out / "runner.py")
    needed = "from components.core.errors import DataError\n"
    alone = 'class DataError(Exception):\n    """The file cannot be used; the message says why."""\n'
    head, tail = DECODER.read_text().split(needed)
    (out / "decoding.py").write_text(f"{head}\n{alone}\n{tail}")


def _identity(model: Path, split: Path, known: dict[str, Any]) -> dict[str, Any]:
    table = read_split(split)
    return {
        "detector": read_json(model / "settings.json")["detector"],
        "dataset": str(table["dataset"].iloc[0]),
        "groups": ",".join(sorted(set(table["group"]))),
        "model": tree_hash(model / "model.safetensors"),
        "data": tree_hash(split / "split.parquet"),
        "alpha": known["alpha"],
        "threshold": known["threshold"],
    }


def _sample(split: Path, data: Path, synthetic: Path, count: int) -> pd.DataFrame:
    """Rows evenly over what was not learned from, the calibrate and test sides; labels are not looked at.

    Where these are fewer than *count*, synthetic anomalies join them. Fit images are no proof: their distance to what
    was learned is near zero, where rounding rules.
    """
    table = read_split(split)
    held = table[table["split"].isin(["calibrate", "test"])]
    made = pd.read_parquet(synthetic / "synthetic.parquet")
    made = made.assign(split="synthetic", group=list(table.set_index("image_id")["group"].loc[made["origin"]]))
    parts = [(held, data, count), (made, synthetic, count - len(held))]
    return pd.concat([_chosen(part, root, max(0, most)) for part, root, most in parts], ignore_index=True)


def _chosen(table: pd.DataFrame, root: Path, count: int) -> pd.DataFrame:
    rows = table.iloc[_evenly(list(range(len(table))), count)][["image_id", "group", "split"]]
    return rows.assign(path=[root / name for name in rows["image_id"]])


def _evenly(names: list[T], count: int) -> list[T]:
    take = min(count, len(names))
    return [names[i * len(names) // take] for i in range(take)]


def _gate(parity: dict[str, Any], settings: ExportSettings, out: Path, graph: str = "graph") -> None:
    worst = max(parity["score_error"], parity["map_error"])
    if worst <= settings.tolerance and parity["decision_agreement"] == 1.0:
        return
    report = write_json(out.parent / f"{out.name}.parity.json", parity)
    raise ParityError(
        f"the exported {graph} differs from the detector by {worst:.2e} (limit {settings.tolerance}), decisions "
        f"agree on {parity['decision_agreement']:.1%}, worst on {parity['worst_image']}; see {report}"
    )
