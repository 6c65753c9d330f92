"""The peer, anomalib, on the same pictures, weights and size; our metrics over the raw scores of both.

anomalib lives in an environment of its own (benchmarks/peer/README.md). It trains on all training normals; Loupe holds
a fifth of them out for its threshold. Loupe's figures are those that ``loupe bench fit`` stored. Written to
benchmarks/results/peer.md and peer.json.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.fitting import FIT
from benchmarks.common.images import SIDE, View
from benchmarks.common.results import RESULTS, WORK, add, commit, stored
from benchmarks.common.runner import options, timed
from benchmarks.common.tables import joined, markdown, number, wrapped
from benchmarks.common.views import prepared
from components.backbones.weights import entry
from components.core.artefacts import write_json
from components.core.errors import SettingsError
from components.datasets.loading import read_split
from components.evaluation.metrics import bootstrap, image_metrics, pixel_metrics

HERE, FOUND, PAGE = Path(__file__).parent, RESULTS / "peer.json", RESULTS / "peer.md"
BACKBONE, EPOCHS, PATCHES = "tf_efficientnet_lite0", 12, 800
MODELS = ("patchcore", "padim", "fastflow", "dfm", "stfpm")
VIEWS = ("mtd", "screw", "elpv-mono", "bottle", "kolektor_sdd")
MAKE = "python3 -m venv {0} && {0}/bin/pip install -r benchmarks/peer/requirements.txt"
HEAD = ("view", "model", "of", "image AUROC", "AP", "F1", "pixel AUROC", "pixel AP", "AUPRO", "how", "commit")
ABOUT = (
    f"Test split, seed 0, {SIDE} x {SIDE} pixels, {BACKBONE} with the same weights, one thread. The peer's models, "
    "losses and optimisers, driven by a plain loop instead of its Engine: no validation, no early stopping. It learns "
    "from all training normals, Loupe from four fifths. Banks and schedules are not alike: PatchCore has "
    f"{PATCHES} patches there and those of preset `cpu` here; FastFlow and STFPM have the epochs that stand beside "
    "them. Times are in peer.json: of a shared machine, and of other days than Loupe's, they do not compare. "
    "-: not measured, or there are no masks."
)


def main(arguments: list[str]) -> None:
    asked = _options(arguments)
    names = asked.names or [f"{view}/{model}" for view in VIEWS for model in MODELS]
    for name in [] if asked.report else names:
        require(asked.python)
        add(FOUND, {name: measured(name, asked.python, asked.epochs)})
        sys.stderr.write(f"{name}: image AUROC {stored(FOUND)[name]['image']['auroc']:.3f}\n")
    PAGE.write_text(page(stored(FOUND), stored(FIT)))


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = options("peer", __doc__, report=True)
    parser.add_argument("--python", type=Path, default=HERE / ".venv/bin/python", help="of the peer's environment")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of what learns by gradients; ours has 12")
    parser.add_argument("names", nargs="*", metavar="VIEW/MODEL", help=f"models: {', '.join(MODELS)}")
    return parser.parse_args(arguments)


def require(python: Path) -> None:
    """Raises SettingsError that says how to make the peer's environment where it is missing."""
    if not python.exists():
        raise SettingsError(
            f"{python}: the peer's environment is not there; make it with `{MAKE.format(HERE / '.venv')}`"
        )


def measured(name: str, python: Path, epochs: int) -> dict[str, Any]:
    """One model of the peer on one view, in a process of its own."""
    view_name, _, model = name.partition("/")
    if model not in MODELS:
        raise SettingsError(f"{name}: give VIEW/MODEL, the model one of {', '.join(MODELS)}")
    view, folder = View.of(view_name), WORK / "peer"
    prepared(view.stages, synthetic=False)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{view_name}-{model}.json"
    write_json(path, request(view, model, path.with_suffix(".npz"), epochs))
    usage = timed([str(python), str(HERE / "train.py"), str(path)], path.with_suffix(".log"))
    with np.load(path.with_suffix(".npz")) as found:
        figures = figured(view.labels(), view.masks(1), found["scores"], found["maps"])
        seconds = json.loads(str(found["seconds"]))
    how = (
        f"{epochs} epochs" if model in ("fastflow", "stfpm") else f"{PATCHES} patches" if model == "patchcore" else "-"
    )
    return {**figures, "seconds": seconds, "peak_memory_mb": usage.peak_mb, "how": how, "commit": commit()}


def request(view: View, model: str, out: Path, epochs: int) -> dict[str, Any]:
    """What benchmarks/peer/train.py is asked: all training normals, and the labelled test pictures in our order."""
    split = read_split(view.split)
    normals = split[split["split"].isin(["fit", "calibrate"]) & (split["label"] == "normal")]
    weights = entry(BACKBONE)
    train, test = (
        [str((view.stages.data / i).resolve()) for i in ids] for ids in (normals["image_id"], view.test_ids())
    )
    known = {"backbone": BACKBONE, "weights": str(weights["path"]), "mean": weights["mean"], "std": weights["std"]}
    how = {"size": SIDE, "epochs": epochs, "patches": PATCHES, "threads": 1, "seed": 0}
    return {"model": model, "train": train, "test": test, "out": str(out.resolve()), **known, **how}


def figured(
    labels: np.ndarray, truth: tuple[np.ndarray, np.ndarray], scores: np.ndarray, maps: np.ndarray
) -> dict[str, Any]:
    """Image and pixel figures of raw *scores* (N,) and *maps* (N, SIDE, SIDE); *truth*: rows with masks, and these."""
    known, masks = truth
    image = {**image_metrics(labels, scores), "interval": bootstrap(labels, scores, 1000, 0)["auroc"]}
    pixel = pixel_metrics(masks, maps[known]) if masks.any() else {}
    return {"image": image, "pixel": {key: value for key, value in pixel.items() if key != "curve"}}


def page(found: dict[str, Any], fit: dict[str, Any]) -> str:
    """results/peer.md: each model of the peer, and below it ours of the same name on the same view."""
    lines = []
    for name, own in sorted(found.items()):
        view, _, model = name.partition("/")
        lines.append(row(view, model, "anomalib", own, own["how"]))
        if name in fit:
            ours = {**fit[name]["overall"], "commit": fit[name]["commit"]}
            lines.append(row(view, model, "Loupe", ours, "preset cpu"))
    body = markdown(HEAD, lines) if lines else "Nothing is measured yet."
    return joined("# Beside anomalib", wrapped(ABOUT), body)


def row(view: str, model: str, whose: str, entry: dict[str, Any], how: str) -> list[str]:
    image = [number(entry["image"], key) for key in ("auroc", "ap", "f1_max")]
    pixel = [number(entry["pixel"], key) for key in ("auroc", "ap", "aupro")]
    return [view, model, whose, *image, *pixel, how, str(entry["commit"])[:7]]
