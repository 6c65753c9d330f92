"""What some labelled anomalies are worth to PRN.

The published setting of PRN learns from real anomalies as well. N of them (``split.labelled``) leave the test split
and are learned from; beside it stands the normal-only model that ``loupe bench fit`` has trained on the same normals,
calibrated and evaluated on the very same test images. Figures of the two compare with each other and with nothing
else: no other method here has seen a defect. Writes results/labelled.json and results/labelled.md.
"""

import shutil
from dataclasses import replace
from typing import Any

import torch

from benchmarks.common.results import RESULTS, WORK, add, commit, stored
from benchmarks.common.runner import options
from benchmarks.common.tables import markdown, within
from benchmarks.common.views import prepared, stages_of
from components.core.artefacts import read_json
from components.core.errors import DataError
from components.datasets.loading import rows
from components.pipeline.stages import Stages

DETECTOR = "prn"
HEAD = (
    "view",
    "learned from",
    "test images",
    "image AUROC (95 %)",
    "pixel AUROC",
    "pixel AP",
    "AUPRO 0.3",
    "misses",
)
ABOUT = """PRN, preset `cpu`, seed 0, one thread; both models on the test split that the anomalies learned from leave
behind. Not to be compared with other tables: their test splits are larger and their methods have seen normals only."""


def main(arguments: list[str]) -> None:
    parser = options("labelled", __doc__)
    parser.add_argument("view", nargs="?", default="mtd")
    parser.add_argument("--count", type=int, default=20, help="labelled anomalies, defect types in turn")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    known = stages_of(asked.view)
    with_some = labelled(known, asked.count, "with")
    prepared(with_some)
    without = labelled(known, asked.count, "without")
    borrowed(known, with_some, without)
    if not (with_some.of(DETECTOR) / "model").exists():
        with_some.train(DETECTOR)
    entry = {"with": evaluated(with_some), "without": evaluated(without), "commit": commit()}
    path = RESULTS / "labelled.json"
    add(path, {f"{asked.view}/{asked.count}": entry})
    path.with_suffix(".md").write_text(page(stored(path)))


def labelled(known: Stages, count: int, what: str) -> Stages:
    """The same view with *count* anomalies moved to the fit side, in a folder of its own."""
    params, folder = known.params, WORK / f"labelled-{count}-{what}"
    return replace(known, params=replace(params, split=replace(params.split, labelled=count), artefacts=str(folder)))


def borrowed(known: Stages, split: Stages, stages: Stages) -> None:
    """Give *stages* the split of *split* and the normal-only model of *known*. Raises DataError."""
    model = known.of(DETECTOR) / "model"
    if not model.exists():
        raise DataError(f"{model}: is missing; run loupe bench fit {known.view}/{DETECTOR} first")
    for side in ("fit", "calibrate"):
        one, other = (set(rows(s.folder / "split", side, "normal")["image_id"]) for s in (known, split))
        if one != other:
            raise DataError(f"{known.folder}: its {side} normals are others than those of {split.folder}")
    shutil.rmtree(stages.folder, ignore_errors=True)
    shutil.copytree(split.folder / "split", stages.folder / "split")
    shutil.copytree(model, stages.of(DETECTOR) / "model")


def evaluated(stages: Stages) -> dict[str, Any]:
    for step, made in ((stages.calibrate, "calibration"), (stages.evaluate, "evaluation")):
        shutil.rmtree(stages.of(DETECTOR) / made, ignore_errors=True)
        step(DETECTOR)
    return dict(read_json(stages.of(DETECTOR) / "evaluation" / "metrics.json")["overall"])


def page(found: dict[str, Any]) -> str:
    """results/labelled.md."""
    lines = [_cells(name, what, entry[what]) for name, entry in sorted(found.items()) for what in ("without", "with")]
    return f"# Labelled anomalies\n\n{ABOUT}\n\n{markdown(HEAD, lines)}\n"


def _cells(name: str, what: str, overall: dict[str, Any]) -> list[str]:
    view, count = name.split("/")
    image, pixel = overall["image"], overall["pixel"]
    return [
        view,
        "normals" if what == "without" else f"normals and {count} anomalies",
        str(sum(overall["n"].values())),
        within(image["auroc"], image["interval"]["auroc"]),
        f"{pixel['auroc']:.3f}",
        f"{pixel['ap']:.3f}",
        f"{pixel['aupro']:.3f}",
        f"{overall['miss_rate']['rate']:.3f}",
    ]
