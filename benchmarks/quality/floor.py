"""Whether training earns anything beside untrained networks, the pixel-mean image and brightness alone.

Each detector that ``loupe bench fit`` trained (seed 0) beside two floors on the same test images: itself with the
weights it was created with, whose closed-form stages run and whose gradient steps do not; and the pixel-mean image,
whose score is the root mean squared difference of an image from the mean of the fit normals. The difference of image
AUROC comes with a paired bootstrap interval. Test labels only report. Writes results/floor.json and results/floor.md,
and there what mean brightness alone tells, where the splits are at hand.
"""

import sys
from typing import Any

import numpy as np
import pandas as pd
import torch

from benchmarks.common.images import KEPT, SIDE, View, trained_scores
from benchmarks.common.results import RESULTS, add, commit, stored
from benchmarks.common.runner import apart, beside, one_thread, options
from benchmarks.common.short import figures, kept_at, paired
from benchmarks.common.tables import markdown, sections
from benchmarks.common.views import VIEWS
from components.detectors.catalogue import CATALOGUE, create, settings_for
from components.detectors.contract import Detector, OnePass, Table, TrainingData
from components.evaluation.metrics import image_metrics

FLOORS = {"untrained": "itself untrained", "pixel_mean": "pixel-mean image"}
HEAD = (
    "view",
    "detector",
    "trained",
    "untrained",
    "difference (95 %)",
    "pixel-mean image",
    "difference (95 %)",
    "beats",
)
ABOUT = """Image AUROC on the test split, preset `cpu`, seed 0. *Untrained*: the weights the detector is created with;
its closed-form stages (statistics, memory banks) run, no gradient step does. *Pixel-mean image*: root mean squared
difference from the mean of the fit normals. The intervals are paired bootstraps over test images; *beats* names the
floors whose interval lies above zero."""
BRIGHTNESS = "Brightness alone"
LIGHT = """Mean grey level in [0, 1] of the fit normals, of the good and of the defective test images, and the image
AUROC of its negative. Where good test images are unlike the fit normals in so plain a thing, a difference from normal
pixels does not mean a defect."""
LEVELS = ("auroc_of_darkness", "fit", "good", "defective")


def main(arguments: list[str]) -> None:
    parser = options("floor", __doc__, jobs=True, report=True)
    parser.add_argument("--untrained", metavar="VIEW/DETECTOR", help="one of them in this process")
    parser.add_argument("names", nargs="*", metavar="VIEW/DETECTOR")
    asked = parser.parse_args(arguments)
    if asked.untrained:
        untrained(asked.untrained)
        return
    if not asked.report:
        names = [n for n in asked.names or (f"{v}/{d}" for v in VIEWS for d in CATALOGUE) if trained_scores(n).exists()]
        beside(asked.jobs, record, names)
    path = RESULTS / "floor.md"
    light = {name: brightness(*levels(View.of(name))) for name in VIEWS if View.of(name).split.exists()}
    told = brightness_text(light) if light else sections(path.read_text())[BRIGHTNESS]
    path.write_text(page(stored(RESULTS / "floor.json"), told))


def record(name: str) -> None:
    if not apart("floor", "--untrained", name, KEPT):
        return
    entry = compared(name)
    add(RESULTS / "floor.json", {name: entry})
    sys.stderr.write(f"{name}: {entry['trained']:.3f}, untrained {entry['untrained']['auroc']:.3f}\n")


def untrained(name: str) -> None:
    """Score the test split with the weights that the detector starts from."""
    one_thread()
    view_name, _, kind = name.partition("/")
    view = View.of(view_name)
    torch.manual_seed(0)
    detector = create(kind, settings_for(kind, "cpu"))
    closed_form(detector, view.fit())
    np.save(kept_at("floor", name, "npy"), figures(detector, detector.inputs(view.test()), view)[1])


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
    floors = {"untrained": np.load(kept_at("floor", name, "npy")), "pixel_mean": from_mean_image(view)}
    return {
        "trained": image_metrics(labels, scores)["auroc"],
        **{what: held_against(labels, scores, floor) for what, floor in floors.items()},
        "commit": commit(),
    }


def held_against(labels: np.ndarray, scores: np.ndarray, floor: np.ndarray) -> dict[str, Any]:
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


def page(found: dict[str, Any], light: str) -> str:
    """results/floor.md."""
    return f"# Floors\n\n{ABOUT}\n\n{markdown(HEAD, lines_of(found))}\n\n## {BRIGHTNESS}\n\n{light}\n"


def brightness_text(light: dict[str, dict[str, float]]) -> str:
    """What ``brightness`` found of each view."""
    lines = ([view, *(f"{line[name]:.3f}" for name in LEVELS)] for view, line in light.items())
    return f"{LIGHT}\n\n{markdown(('view', *(name.replace('_', ' ') for name in LEVELS)), lines)}"


def lines_of(found: dict[str, Any]) -> list[list[str]]:
    """The cells of HEAD, a line per VIEW/DETECTOR."""
    return [_cells(name, entry) for name, entry in sorted(found.items())]


def _cells(name: str, entry: dict[str, Any]) -> list[str]:
    cells = [*name.split("/"), f"{entry['trained']:.3f}"]
    for what in FLOORS:
        low, high = entry[what]["difference"]
        cells += [f"{entry[what]['auroc']:.3f}", f"{low:+.3f} to {high:+.3f}"]
    named = beaten(entry)
    return [*cells, "both" if len(named) == len(FLOORS) else " and ".join(named) or "neither"]


def beaten(entry: dict[str, Any]) -> list[str]:
    """The floors whose interval lies above zero."""
    return [text for what, text in FLOORS.items() if entry[what]["difference"][0] > 0]
