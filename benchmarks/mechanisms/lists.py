"""What PatchCore loses by searching its bank in lists, and how many of them it visits.

One training of preset cpu for each view, whose bank is then searched whole, and by lists. Visited are the 6 or 8
nearest ones, or of 8 those that a reach of 0.25, 0.5 or 0.75 leaves. Of the calibrate normals: the share of patches
whose distance stays as it is, and the largest change of the farthest one's. By such figures the reach was chosen,
before anything of the test side was measured. Of the test split: image AUROC, pixel AP and AUPRO. Milliseconds are of
the search alone in torch, a picture on one thread, in turns. Written to benchmarks/results/lists.json and lists.md.
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
from components.detectors.parts.lists import Lists
from components.evaluation.evaluate import evaluate
from components.training.model import inputs_of, load_model, save_model

OUT = RESULTS / "lists.json"
DETECTOR, VIEWS = "patchcore", ("mtd", "screw", "elpv-mono", "bottle", "kolektor_sdd", "bsdata")
WAYS = ((0, 0.0), (6, 0.0), (8, 0.0), (8, 0.25), (8, 0.5), (8, 0.75))  # lists at most and reach; 0: the whole bank
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
    """A row for the whole bank and for each way to visit lists."""
    prepare(view)
    at = stages_of(view).of(DETECTOR)
    for stage, made in (("train", "model"), ("calibrate", "calibration")):
        shutil.rmtree(at / made, ignore_errors=True)
        staged(stage, view, DETECTOR, params_file(0))
    found = {way: variant(at / "model", *way) for way in WAYS}
    given = pictures(view, found[WAYS[0]])
    exact = [patches(found[WAYS[0]], features) for features in given]
    times = in_turns({str(way): clocked(partial(patches, one, given[0])) for way, one in found.items()}, ROUNDS)
    return [
        {
            "probes": way[0],
            "reach": way[1],
            "rows": int(one.coreset.count),
            "lists": len(one.lists.ends) if one.lists else 0,
            **apart(exact, [patches(one, features) for features in given]),
            "ms": 1000 * float(np.median([figure["s"] for figure in times[str(way)]])),
            **tested(view, one, at, "-".join(map(str, way))),
        }
        for way, one in found.items()
    ]


def variant(model: Path, probes: int, reach: float) -> PatchCore:
    """The trained detector with *probes* lists visited and that *reach*; without probes: the whole bank."""
    made = cast(PatchCore, load_model(model))
    known = made.coreset.known()
    made.settings = replace(made.settings, probes=probes or made.settings.probes, reach=reach)
    if not probes:
        made.settings, made.lists = replace(made.settings, lists=0), None
        return made
    made.lists = Lists(made.settings.bank_size, known.shape[1], made.settings.lists, probes, reach)
    made.lists.build(known)
    made.lists.read()
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


def tested(view: str, detector: PatchCore, at: Path, name: str) -> dict[str, Any]:
    """Figures of the test split."""
    stages, folder = stages_of(view), at / f"lists-{name}"
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


def said(row: dict[str, Any]) -> str:
    """Which lists a row visits."""
    visited = str(row["probes"] or "all")
    return f"{visited}, reach {row['reach']:g}" if row.get("reach") else visited


def page(found: dict[str, Any]) -> str:
    """results/lists.md."""
    head = ("view", "rows", "lists", "visited", "patches that stay", "image score off", "ms", "times sooner")
    tested = ("view", "visited", "image AUROC", "pixel AP", "AUPRO 0.3")
    first, second = [], []
    for view, entry in found.items():
        whole = entry["rows"][0]["ms"]
        for row in entry["rows"]:
            visited = said(row)
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
