"""Whether training earns anything: ``python -m benchmarks.floor [--jobs N] [VIEW/DETECTOR ...]``.

Each detector that ``benchmarks.fit`` trained (seed 0) beside two floors on the same test images: itself with the
weights it was created with, whose closed-form stages run and whose gradient steps do not; and the pixel-mean image,
whose score is the root mean squared difference of an image from the mean of the fit normals. The difference of image
AUROC comes with a paired bootstrap interval. Test labels only report. Writes results/floor.json and results/floor.md,
and there what mean brightness alone tells; ``--report`` does that and nothing else.
"""

import argparse
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.fit import VIEWS, stored
from benchmarks.mechanisms import paired
from benchmarks.table import markdown
from benchmarks.variant import KEPT, SIDE, View, apart, figures
from components.core.artefacts import git_commit, read_json, write_json
from components.core.runtime import keep_freed_memory
from components.detectors.catalogue import CATALOGUE, create, settings_for
from components.detectors.contract import Detector, OnePass, Table, TrainingData
from components.evaluation.metrics import image_metrics

RESULTS = Path(__file__).parent / "results"
LOCK = threading.Lock()
FLOORS = {"untrained": "itself untrained", "pixel_mean": "pixel-mean image"}
HEAD = (
    "view", "detector", "trained", "untrained", "difference (95 %)", "pixel-mean image", "difference (95 %)", "beats",
)  # fmt: skip
ABOUT = """Image AUROC on the test split, preset `cpu`, seed 0. *Untrained*: the weights the detector is created with;
its closed-form stages (statistics, memory banks) run, no gradient step does. *Pixel-mean image*: root mean squared
difference from the mean of the fit normals. The intervals are paired bootstraps over test images; *beats* names the
floors whose interval lies above zero."""
LIGHT = """Mean grey level in [0, 1] of the fit normals, of the good and of the defective test images, and the image
AUROC of its negative. Where good test images are unlike the fit normals in so plain a thing, a difference from normal
pixels does not mean a defect."""
LEVELS = ("auroc_of_darkness", "fit", "good", "defective")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.floor")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--untrained", metavar="VIEW/DETECTOR", help="one of them in this process")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args(arguments)
    if asked.untrained:
        untrained(asked.untrained)
        return
    if not asked.report:
        names = [n for n in asked.names or (f"{v}/{d}" for v in VIEWS for d in CATALOGUE) if trained_scores(n).exists()]
        with ThreadPoolExecutor(asked.jobs) as pool:
            list(pool.map(record, names))
    light = {name: brightness(*levels(View.of(name))) for name in VIEWS if View.of(name).split.exists()}
    (RESULTS / "floor.md").write_text(page(read_json(RESULTS / "floor.json"), light))


def trained_scores(name: str) -> Path:
    """Where ``benchmarks.fit`` left the test scores of VIEW/DETECTOR."""
    view, _, detector = name.partition("/")
    return View.of(view).stages.of(detector) / "evaluation" / "scores.parquet"


def _made(name: str) -> Path:
    return KEPT / f"floor-{name.replace('/', '-')}.npy"


def record(name: str) -> None:
    if not apart("floor", "--untrained", name):
        return
    entry, path = compared(name), RESULTS / "floor.json"
    with LOCK:
        write_json(path, stored(path) | {name: entry})
    sys.stderr.write(f"{name}: {entry['trained']:.3f}, untrained {entry['untrained']['auroc']:.3f}\n")


def untrained(name: str) -> None:
    """Score the test split with the weights that the detector starts from."""
    torch.set_num_threads(1)
    keep_freed_memory()
    view_name, _, kind = name.partition("/")
    view = View.of(view_name)
    torch.manual_seed(0)
    detector = create(kind, settings_for(kind, "cpu"))
    closed_form(detector, view.fit())
    np.save(_made(name), figures(detector, detector.inputs(view.test()), view)[1])


@torch.inference_mode()
def closed_form(detector: Detector, data: TrainingData) -> None:
    """Every phase of *detector* that takes no gradient step."""
    detector.eval()
    for phase in detector.phases(data):
        if isinstance(phase, OnePass):
            for start in range(0, len(phase.table), phase.batch_size):
                phase.update(phase.table.take(range(start, min(start + phase.batch_size, len(phase.table)))))
            phase.finish()


def compared(name: str) -> dict[str, Any]:
    view = View.of(name.partition("/")[0])
    known = pd.read_parquet(trained_scores(name)).set_index("image_id")["score"]
    labels, scores = view.labels(), known[view.test_ids()].to_numpy()
    floors = {"untrained": np.load(_made(name)), "pixel_mean": from_mean_image(view)}
    return {
        "trained": image_metrics(labels, scores)["auroc"],
        **{what: beside(labels, scores, floor) for what, floor in floors.items()},
        "commit": git_commit(),
    }


def beside(labels: np.ndarray, scores: np.ndarray, floor: np.ndarray) -> dict[str, Any]:
    """AUROC of the floor, and the interval of what *scores* have above it."""
    return {
        "auroc": image_metrics(labels, floor)["auroc"],
        "difference": paired(labels, scores[None], floor[None]),
    }


def from_mean_image(view: View) -> np.ndarray:
    """Root mean squared difference of every test image from the mean of the fit normals, (N,)."""
    fit, test = (images.pixels(SIDE) for images in (view.fit(), view.test()))
    mean = torch.stack([batch.mean(0) * len(batch) for batch in _batches(fit)]).sum(0) / len(fit)
    return torch.cat([(batch - mean).square().mean((1, 2, 3)).sqrt() for batch in _batches(test)]).numpy()


def levels(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean grey levels of the test images (N,), their labels (N,) and those of the fit normals."""
    test, fit = (
        torch.cat([batch.mean((1, 2, 3)) for batch in _batches(images.pixels(SIDE))]).numpy()
        for images in (view.test(), view.fit())
    )
    return test, view.labels(), fit


def brightness(test: np.ndarray, labels: np.ndarray, fit: np.ndarray) -> dict[str, float]:
    """What LEVELS names."""
    values = (image_metrics(labels, -test)["auroc"], fit.mean(), test[~labels].mean(), test[labels].mean())
    return {name: round(float(value), 4) for name, value in zip(LEVELS, values, strict=True)}


def _batches(table: Table, size: int = 64) -> list[torch.Tensor]:
    return [table.take(range(start, min(start + size, len(table)))) for start in range(0, len(table), size)]


def page(found: dict[str, Any], light: dict[str, dict[str, float]]) -> str:
    """results/floor.md."""
    floors = markdown(HEAD, lines_of(found))
    lines = ([view, *(f"{line[name]:.3f}" for name in LEVELS)] for view, line in light.items())
    table = markdown(("view", *(name.replace("_", " ") for name in LEVELS)), lines)
    return f"# Floors\n\n{ABOUT}\n\n{floors}\n\n## Brightness alone\n\n{LIGHT}\n\n{table}\n"


def lines_of(found: dict[str, Any]) -> list[list[str]]:
    """The cells of HEAD, a line per VIEW/DETECTOR."""
    return [_cells(name, entry) for name, entry in sorted(found.items())]


def _cells(name: str, entry: dict[str, Any]) -> list[str]:
    cells = [*name.split("/"), f"{entry['trained']:.3f}"]
    for what in FLOORS:
        low, high = entry[what]["difference"]
        cells += [f"{entry[what]['auroc']:.3f}", f"{low:+.3f} to {high:+.3f}"]
    return [*cells, " and ".join(beaten(entry)) or "neither"]


def beaten(entry: dict[str, Any]) -> list[str]:
    """The floors whose interval lies above zero."""
    return [text for what, text in FLOORS.items() if entry[what]["difference"][0] > 0]


if __name__ == "__main__":
    main(sys.argv[1:])
