"""Which kinds of defect each detector sees.

Image AUROC and pixel AP of the good test images and those of one kind of defect, for every detector that
``loupe bench fit`` has trained (seed 0), from the scores of its evaluation and from its model. It tells where a figure
comes from and chooses nothing. Writes results/defects.md.
"""

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.common.images import SIDE, STEP, View, trained_scores
from benchmarks.common.results import RESULTS
from benchmarks.common.runner import options
from benchmarks.common.tables import markdown, sections
from components.core.progress import progress
from components.datasets.loading import read_decoding, rows
from components.detectors.catalogue import CATALOGUE
from components.detectors.contract import Detector
from components.evaluation.metrics import pixel_metrics
from components.pictures.heat import squeezed
from components.training.model import load_model, score_files

OUT = RESULTS / "defects.md"
VIEWS = ("mtd", "screw")  # those whose defects have names
ABOUT = """Image AUROC of all good test images against the images of one kind of defect, preset `cpu`, seed 0. Behind
each kind: how many images it has."""
PIXELS = """Pixel AP over all good test images and the images of one kind of defect, at half of 256 x 256. First
lines: the share of a kind in all anomalous pixels, and the median share of its images that is anomalous."""


def main(arguments: list[str]) -> None:
    parser = options("defects", __doc__)
    parser.add_argument("views", nargs="*", metavar="VIEW")
    views = parser.parse_args(arguments).views
    torch.set_num_threads(1)
    parts = sections(OUT.read_text()) if OUT.exists() else {}
    parts |= {view: f"{table(view)}\n\n{PIXELS}\n\n{pixel_table(view)}" for view in views or VIEWS}
    texts = [f"## {view}\n\n{text}" for view, text in sorted(parts.items())]
    OUT.write_text("\n\n".join(["# By kind of defect", ABOUT, *texts]) + "\n")


def table(view: str) -> str:
    """One line per trained detector, in Markdown."""
    kinds = rows(View.of(view).split, "test", "anomalous").set_index("image_id")["defect"]
    files = {name: path for name in CATALOGUE if (path := trained_scores(f"{view}/{name}")).exists()}
    found = {name: by_kind(pd.read_parquet(path), kinds) for name, path in files.items()}
    counts = kinds.value_counts().sort_index()
    head = ("detector", *(f"{kind} ({counts[kind]})" for kind in counts.index))
    return markdown(head, ([name, *(f"{line[kind]:.3f}" for kind in counts.index)] for name, line in found.items()))


def pixel_table(view_name: str) -> str:
    """The same of maps, from the models that ``loupe bench fit`` left."""
    view = View.of(view_name)
    known, masks = view.masks()
    kinds = view.kinds()[known]
    models = {name: path for name in CATALOGUE if (path := view.stages.of(name) / "model").exists()}
    lines = []
    for name, path in progress(list(models.items()), f"{view_name}: maps"):
        detector = load_model(path)
        found = pixels_by_kind(maps_of(detector, view)[known], masks, kinds)
        lines.append([name, *(f"{value:.3f}" for value in found.values())])
    areas = masks.mean((1, 2))
    names = sorted({kind for kind in kinds if kind})
    of_all = ["*share of all*", *(f"{areas[kinds == k].sum() / areas.sum():.0%}" for k in names)]
    of_its = ["*share of its images*", *(f"{np.median(areas[kinds == k]):.1%}" for k in names)]
    return markdown(("detector", *names), [of_all, of_its, *lines])


def maps_of(detector: Detector, view: View) -> np.ndarray:
    """(N, SIDE / STEP, SIDE / STEP) of the test pictures, seen as in training: in squares where these are long."""
    paths, rules = view.test().images.paths, read_decoding(view.split)  # type: ignore[attr-defined]
    maps = (heat for _, batch in score_files(detector, paths, rules=rules) for heat in batch)
    return np.stack([squeezed(heat, SIDE)[::STEP, ::STEP] for heat in maps])


def pixels_by_kind(maps: np.ndarray, masks: np.ndarray, kinds: np.ndarray) -> dict[str, float]:
    """Pixel AP per kind, each with the images of no kind, the good ones."""
    found = {}
    for kind in sorted({kind for kind in kinds if kind}):
        of_it = (kinds == kind) | (kinds == "")
        found[kind] = float(pixel_metrics(masks[of_it], maps[of_it])["ap"])
    return found


def by_kind(scores: pd.DataFrame, kinds: pd.Series) -> dict[str, float]:
    """AUROC per kind; *kinds* by image id."""
    good = scores.loc[scores["label"] == "normal", "score"]
    bad = scores[scores["label"] == "anomalous"].assign(kind=lambda t: t["image_id"].map(kinds))
    return {
        str(kind): float(roc_auc_score([0] * len(good) + [1] * len(part), [*good, *part["score"]]))
        for kind, part in bad.groupby("kind")
    }
