"""The export component: a trained, calibrated detector -> the bundle that a line computer runs."""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from components.calibration.calibrate import kept, map_quantiles, record
from components.calibration.settings import CalibrationSettings
from components.core.artefacts import file_hash, recorded, write_json
from components.core.cache import clear_graphs
from components.core.errors import BundleError, ParityError
from components.core.signing import sign_where_asked
from components.datasets.loading import read_decoding, read_split, rows
from components.decision.bundle import Bundle, Manifest
from components.decision.calibration import Calibration
from components.decision.cascade import Exits
from components.decision.traced import GRAPH
from components.detectors.contract import Detector, Early, Scores, answer
from components.export.card import model_card
from components.export.edge import Grouped, calibrating, exit_of, write_exits
from components.export.embedding import Described
from components.export.graph import write_graph
from components.export.int8 import Material, compared, quantise, refused
from components.export.parity import Decide, compare
from components.export.reference import write_reference
from components.export.repoint import restate
from components.export.settings import ExportSettings
from components.export.ties import shaken
from components.export.trace import axes, identity, manifest_of, restated, texts
from components.pictures.decoding import Decoding
from components.pictures.kept import decode
from components.training.descriptors import evenly
from components.training.model import cut_scores, inputs_of, load_model, map_values

log = logging.getLogger("loupe")
RUNNER = Path(__file__).with_name("runner.py")
PICTURES = Path(__file__).parents[1] / "pictures"
ALONE = {  # what the decoder imports of Loupe, and what stands for it in a bundle
    "from components.pictures.framing import": "from framing import",
    "from components.pictures.rules import": "from rules import",
    "from components.pictures.decoding import": "from decoding import",
    "from components.pictures import decoding": "import decoding",
    "from components.core.errors import DataError\n": '\nclass DataError(Exception):\n    """The file cannot be used; '
    'the message says why."""\n\n\n',
}


def export(
    model: Path,
    calibration: Path,
    split: Path,
    synthetic: Path,
    data: Path,
    out: Path,
    settings: ExportSettings,
    traced: Path | None = None,
) -> Path:
    """Write the bundle; the anomalies of *synthetic* bound what an edge graph lets out.

    The graph is the one that ``trace`` wrote to *traced*, where it is given, and else traced here.

    Raises ParityError, with parity.json beside *out*, when the graph scores otherwise.
    """
    known, detector = Calibration.read(calibration / "calibration.json"), load_model(model)
    manifest = manifest_of(model, split, detector.rules(read_decoding(split)), settings.provider)
    if known.model != manifest.model:
        raise BundleError(f"{calibration}: is of another model than {model}; calibrate again, then export")
    held = _sample(split, data, synthetic, settings.parity_images)
    inputs = {
        "model": model / "model.safetensors",
        "calibration": calibration / "calibration.json",
        "split": split / "split.parquet",
    }
    early = isinstance(detector, Early) and not known.folds
    if early or "synthetic" in set(held["split"]):
        inputs["synthetic"] = synthetic / "synthetic.parquet"
    normals = _normals(split, calibration, known)
    if isinstance(detector, Early) and not early:
        log.warning("%s: calibrated by folds, no edge graph: its limits need pictures that it has not seen", out)
    with recorded(out, "export", settings, inputs, seal=sign_where_asked) as scratch:
        shutil.copy2(calibration / "calibration.json", scratch / "calibration.json")
        described = partial(axes, model, detector, split, data, manifest.decoding)
        graphs = Graphs(scratch, detector, described, known, manifest, held, settings, traced)
        parity, tolerance, runtime = graphs.full(out), settings.tolerance, {}
        if settings.int8.wanted:
            learned = evenly(list(rows(split, "fit", "normal")["image_id"]), settings.int8.pictures)
            given = _material(split, data, synthetic, learned, manifest.decoding)
            known, parity, runtime["int8"] = graphs.smaller(parity, given, rows(split, "calibrate", "normal"))
            graphs = replace(graphs, known=known)
            tolerance = settings.int8.tolerance if runtime["int8"]["taken"] else tolerance
        if early:
            parity["edge"] = graphs.edge(out, *calibrating(split, data, synthetic))
        write_json(scratch / "parity.json", {**parity, "tolerance": tolerance})
        runtime |= {key: parity[key] for key in ("provider", "score_error", "map_error")}
        write_runner(scratch)
        write_reference(Bundle(scratch, manifest, None), data, normals, scratch / "reference.parquet")
        (scratch / "MODEL_CARD.md").write_text(model_card(detector, manifest, known, parity, runtime))
        files = {p.name: file_hash(p) for p in sorted(scratch.iterdir())}
        more = {"rule": known.rule, "decoding": manifest.decoding.kept, "runtime": runtime, "files": files}
        write_json(scratch / "manifest.json", {**identity(manifest, known), **more})
    log.info("%s: score error %.1e, map error %.1e", out, parity["score_error"], parity["map_error"])
    return out


@dataclass(frozen=True)
class Graphs:
    """Writes the graphs of one detector to *folder*, each held against it on the pictures *compared*."""

    folder: Path
    detector: Detector
    described: Callable[[], Tensor]  # descriptors of fit normals
    known: Calibration
    manifest: Manifest
    compared: pd.DataFrame
    settings: ExportSettings
    traced: Path | None = None  # where model.onnx lies already, but for its operating point

    @cached_property
    def seen(self) -> Tensor:
        return self.described()

    def full(self, out: Path) -> dict[str, Any]:
        """model.onnx and its parity. Raises ParityError."""
        if self.traced:
            restated(self.traced / GRAPH, self.folder / "model.onnx", texts(identity(self.manifest, self.known)))
        else:
            self._write("model.onnx", Described(self.detector, self.seen), {})
        parity = self._parity("model.onnx", lambda scores, groups: self.known.decide(scores, groups)[1])
        counts = self.compared["split"].value_counts().sort_index()
        parity["sides"] = {str(side): int(n) for side, n in counts.items()}
        return _gate(parity, self.settings, out)

    def smaller(
        self, parity: dict[str, Any], given: Material, normals: pd.DataFrame
    ) -> tuple[Calibration, dict[str, Any], dict[str, Any]]:
        """model.onnx in 8-bit integers where it passes, calibrated through itself: the table, its parity, and what was
        measured, with the reason where it is not taken."""
        graph, other = self.folder / "model.onnx", self.folder / "int8.onnx"
        if self.known.folds:
            return self.known, parity, _float_stays("calibrated by folds: no picture is held out to judge by")
        if not quantise(graph, other, given):
            return self.known, parity, _float_stays("there is no frozen network in it")
        found, good = compared(graph, other, given)
        maps = np.concatenate([map_quantiles(map_values(heat[:, 0], given.rules)) for heat in good.maps])
        asked = CalibrationSettings(self.known.alpha, self.known.confidence)
        values = {"model": self.known.model, **record(good.scores, maps, normals["group"].to_numpy(), asked)}
        values |= kept(self.known.alike)
        new = Calibration.of(values)
        measured = self._parity("int8.onnx", lambda scores, groups: new.decide(scores, groups)[1])
        found |= {key: measured[key] for key in ("score_error", "map_error", "decision_agreement")}
        if why := refused(found, self.settings.int8):
            other.unlink()
            return self.known, parity, _float_stays(why) | found
        other.replace(graph)
        restate(graph, new)
        write_json(self.folder / "calibration.json", values)
        log.info("int8: %.2f times as fast", found["times_faster"])
        return new, {**measured, "sides": parity["sides"]}, {"taken": True, **found}

    def edge(self, out: Path, normals: Grouped, made: Grouped) -> dict[str, Any]:
        """edge.onnx, cascade.json and the parity of the early answer. Raises ParityError."""
        self._write("edge.onnx", Described(self.detector, self.seen, early=True), {"graph": "edge"})
        stands = write_exits(self.folder, self.known, self.settings.cascade, normals, made, self.settings.provider)
        ways = partial(exit_of, Exits.of(stands))
        parity = _gate(self._parity("edge.onnx", ways, early=True), self.settings, out, "edge graph")
        return {**parity, "leave": stands["leave"]}

    def _write(self, name: str, described: Described, more: dict[str, str]) -> None:
        metadata = texts(identity(self.manifest, self.known)) | more
        write_graph(described.eval(), self.folder / name, self.settings.opset, metadata)

    def _parity(self, graph: str, decisions: Decide, early: bool = False) -> dict[str, Any]:
        names, groups, paths = (list(self.compared[column]) for column in ("image_id", "group", "path"))
        tolerance, rules = self.settings.tolerance, self.manifest.decoding
        scorer = partial(from_files, self.detector, rules, early)
        provider = self.settings.provider
        again = shaken(self.detector, scorer)
        return compare(scorer, self.folder / graph, paths, names, decisions, groups, tolerance, rules, provider, again)


def _float_stays(why: str) -> dict[str, Any]:
    log.warning("int8: not taken, %s", why)
    return {"taken": False, "why": why}


def _material(split: Path, data: Path, synthetic: Path, learned: list[str], rules: Decoding) -> Material:
    """Image files of the fit side, of the calibrate normals and of the anomalies on them."""
    normals, made = calibrating(split, data, synthetic)
    return Material([data / name for name in learned], normals.paths, made.paths, rules)


@torch.inference_mode()
def from_files(
    detector: Detector, rules: Decoding, early: bool, paths: Sequence[Path], size: tuple[int, int]
) -> Scores:
    """What the detector, or its early answer, says of image files as calibration sees them; maps at *size* (H, W)."""
    if not rules.tiles:
        return answer(detector, inputs_of(detector, paths, rules), size, early)
    found = [cut_scores(detector, decode(path, rules=rules), rules, True, early) for path in paths]
    scores, maps = zip(*found, strict=True)
    return Scores(torch.tensor(scores), torch.from_numpy(np.stack(maps))[:, None])


def write_runner(out: Path) -> None:
    """runner.py, and what decodes and cuts pictures in this very version beside it, which needs nothing of Loupe."""
    shutil.copy2(RUNNER, out / "runner.py")
    for name in ("framing.py", "rules.py", "tiles.py", "decoding.py", "clips.py"):
        text = (PICTURES / name).read_text()
        for needed, alone in ALONE.items():
            text = text.replace(needed, alone)
        (out / name).write_text(text)


def _normals(split: Path, calibration: Path, known: Calibration) -> dict[str, float | None]:
    """The pictures that calibrate, with the scores of the folds' models where these do."""
    if not known.folds:
        return dict.fromkeys(map(str, rows(split, "calibrate", "normal")["image_id"]))
    table = pd.read_parquet(calibration / "scores.parquet")
    return {str(name): float(score) for name, score in zip(table["image_id"], table["score"], strict=True)}


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
    rows = table.iloc[evenly(list(range(len(table))), count)][["image_id", "group", "split"]]
    return rows.assign(path=[root / name for name in rows["image_id"]])


def _gate(parity: dict[str, Any], settings: ExportSettings, out: Path, graph: str = "graph") -> dict[str, Any]:
    """*parity*, if it passes; if not, the graph may be one that was reused, and the next try exports it anew."""
    worst = max(parity["score_error"], parity["map_error"])
    if worst <= settings.tolerance and parity["decision_agreement"] == 1.0:
        return parity
    clear_graphs()
    report = write_json(out.parent / f"{out.name}.parity.json", parity)
    raise ParityError(
        f"the exported {graph} differs from the detector by {worst:.2e} (limit {settings.tolerance}), decisions "
        f"agree on {parity['decision_agreement']:.1%}, worst on {parity['worst_image']}; see {report}"
    )
