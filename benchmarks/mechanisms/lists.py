"""What PatchCore loses by searching its bank in lists, and how many lists it takes.

One training of preset cpu for each view, whose bank is then searched whole, and by lists of which 4, 6 or 8 are
visited. Of the calibrate normals: the share of patches whose distance stays as it is, and the largest change of the
farthest one's. By such figures the number was chosen, before anything of the test side was measured. Of the test split:
image AUROC, pixel AP and AUPRO. Milliseconds are of the search alone in torch, a picture on one thread, in turns.
Written to benchmarks/results/lists.json and lists.md.
"""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.common.results import RESULTS, add, commit, stored
from benchmarks.common.runner import options, staged
from benchmarks.common.tables import joined, markdown, wrapped
from benchmarks.common.views import params_file, prepare, stages_of
from benchmarks.speed.turns import clocked, in_turns
from components.core.artefacts import read_json
from components.datasets.loading import read_decoding, rows
from components.detectors.methods.patchcore import PatchCore
from components.evaluation.evaluate import evaluate
from components.training.model import inputs_of, load_model, save_model

OUT = RESULTS / "lists.json"
DETECTOR, PROBES, VIEWS = "patchcore", (4, 6, 8), ("mtd", "screw", "elpv-mono", "bottle", "kolektor_sdd", "bsdata")
PICTURES, ROUNDS = 40, 9
ALIKE = 1e-4  # of a distance: less is rounding


def main(arguments: list[str]) -> None:
    parser = options("lists", __doc__, report=True)
    parser.add_argument("views", nargs="*", metavar="VIEW")
    asked = parser.parse_args(arguments)
    torch.set_num_threads(1)
    for view in [] if asked.report else asked.views or VIEWS:
        add(OUT, {view: {"rows": measured(view), "commit": commit(), "seed": 0}})
    OUT.with_suffix(".md").write_text(page(stored(OUT)))


def measured(view: str) -> list[dict[str, Any]]:
    """A row for the whole bank and for each number of visited lists."""
    prepare(view)
    at = stages_of(view).of(DETECTOR)
    for stage, made in (("train", "model"), ("calibrate", "calibration")):
        shutil.rmtree(at / made, ignore_errors=True)
        staged(stage, view, DETECTOR, params_file(0))
    found = {probes: variant(at / "model", probes) for probes in (0, *PROBES)}
    given = pictures(view, found[0])
    exact = [patches(found[0], features) for features in given]
    times = in_turns({str(k): clocked(partial(patches, one, given[0])) for k, one in found.items()}, ROUNDS)
    return [
        {
            "probes": probes,
            "rows": int(one.coreset.count),
            "lists": len(one.lists.ends) if one.lists else 0,
            **apart(exact, [patches(one, features) for features in given]),
            "ms": 1000 * float(np.median([figure["s"] for figure in times[str(probes)]])),
            **tested(view, one, at, probes),
        }
        for probes, one in found.items()
    ]


def variant(model: Path, probes: int) -> PatchCore:
    """The trained detector with *probes* lists visited; 0: the whole bank."""
    made = cast(PatchCore, load_model(model))
    made.settings = replace(made.settings, probes=probes or made.settings.probes)
    if made.lists and probes:
        made.lists.probes = probes
        made.lists.read()
    if not probes:
        made.settings, made.lists = replace(made.settings, lists=0), None
    return made


def pictures(view: str, detector: PatchCore) -> list[Any]:
    """Features of calibrate normals, a picture each."""
    stages = stages_of(view)
    table, rules = rows(stages.folder / "split", "calibrate", "normal"), read_decoding(stages.folder / "split")
    chosen = table["image_id"].iloc[:: max(1, len(table) // PICTURES)][:PICTURES]
    with torch.inference_mode():
        return [inputs_of(detector, [stages.data / name], rules) for name in chosen]


@torch.inference_mode()
def patches(detector: PatchCore, features: Any) -> Tensor:
    """Distances of the patches of one picture, (N,)."""
    return detector.distances(detector.embed(features).flatten(2).transpose(1, 2))[0]


def apart(exact: Iterable[Tensor], found: Iterable[Tensor]) -> dict[str, float]:
    """The share of patches that stay, and the largest change of the farthest patch of a picture."""
    pairs = list(zip(exact, found, strict=True))
    same = [(theirs - ours).abs() <= ALIKE * ours.clamp_min(1) for ours, theirs in pairs]
    changes = [abs(float(theirs.max() / ours.max()) - 1) for ours, theirs in pairs]
    return {"same": float(torch.cat(same).float().mean()), "image_change": max(changes)}


def tested(view: str, detector: PatchCore, at: Path, probes: int) -> dict[str, Any]:
    """Figures of the test split."""
    stages, folder = stages_of(view), at / f"lists-{probes}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "model").mkdir(parents=True)
    save_model(detector, folder / "model")
    shutil.copy(at / "model" / "history.json", folder / "model")
    split = stages.folder / "split"
    where = folder / "model", at / "calibration", split, stages.data, folder / "evaluation"
    evaluate(*where, stages.params.evaluation, stages.params.seed)
    whole = read_json(folder / "evaluation" / "metrics.json")["overall"]
    pixel = {f"pixel_{k}": whole["pixel"].get(k) for k in ("ap", "aupro")}
    return {"auroc": whole["image"]["auroc"], **pixel}


def page(found: dict[str, Any]) -> str:
    """results/lists.md."""
    head = ("view", "rows", "lists", "visited", "patches that stay", "image score off", "ms", "times sooner")
    tested = ("view", "visited", "image AUROC", "pixel AP", "AUPRO 0.3")
    first, second = [], []
    for view, entry in found.items():
        whole = entry["rows"][0]["ms"]
        for row in entry["rows"]:
            visited = str(row["probes"] or "all")
            told = [f"{row['same']:.4f}", f"{row['image_change']:.1e}", f"{row['ms']:.1f}", f"{whole / row['ms']:.2f}"]
            first.append([view, str(row["rows"]), str(row["lists"] or "-"), visited, *told])
            shown = (row["auroc"], row["pixel_ap"], row["pixel_aupro"])
            second.append([view, visited, *("-" if value is None else f"{value:.4f}" for value in shown)])
    commits = ", ".join(sorted({str(entry["commit"])[:8] for entry in found.values()}))
    about = wrapped(" ".join((__doc__ or "").split("Written to")[0].split()))
    return joined(
        "# PatchCore's bank by lists",
        about,
        f"Commit {commits}, seed 0.",
        markdown(head, first),
        markdown(tested, second),
    )
