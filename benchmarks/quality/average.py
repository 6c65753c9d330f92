"""Input sizes: PatchCore at several sizes, each alone, and the mean of their standardised scores.

Each size is one training by the pipeline's stages, with a bank of 4,000 rows, cut into squares where pictures are long
(data.tiles auto). Sizes above the shorter side of a view's pictures are left out, as `size: auto` leaves them out. Two
means were fixed before anything was measured: of all sizes, and of those that `size: auto` takes. Scores are
standardised on the calibrate normals, and the threshold at alpha is that of their means. A difference is of the same
test pictures, drawn again 1,000 times within each label. Labels choose nothing. Written to
benchmarks/results/average.md and average.json.
"""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from sklearn.metrics import roc_auc_score

from benchmarks.common.results import RESULTS, WORK, add, commit, stored
from benchmarks.common.runner import beside, options, staged
from benchmarks.common.tables import markdown
from benchmarks.common.views import ALL, prepare, stages_of
from components.core.artefacts import read_json
from components.datasets.loading import rows
from components.decision.calibration import Calibration
from components.decision.conformal import threshold
from components.decision.paired import Sides, difference
from components.detectors.catalogue import named
from components.pipeline.stages import Stages
from components.training.combine import scales_of

STORE, PAGE = RESULTS / "average.json", RESULTS / "average.md"
SIZES, AUTO = (128, 256, 384, 512), (256, 384, 512)
BANK, ALPHA = 4000, 0.05


class Scored(NamedTuple):
    """Standardised scores of calibrate normals and of test pictures, and which of these are anomalous."""

    normals: np.ndarray
    tested: np.ndarray
    anomalous: np.ndarray


def main(arguments: list[str]) -> None:
    parser = options("average", __doc__, jobs=True, report=True)
    parser.add_argument("views", nargs="*", metavar="VIEW")
    asked = parser.parse_args(arguments)
    views = [] if asked.report else asked.views or list(ALL)
    for view in views:
        prepare(view)
    # The longest trainings begin first, so that none is left alone at the end.
    cells = sorted(((size, view) for view in views for size in sizes_of(stages_of(view))), reverse=True)
    beside(asked.jobs, lambda cell: trained(cell[1], cell[0]), cells)
    for view in views:
        add(STORE, {view: measured(view)})
    PAGE.write_text(page(stored(STORE)))


def sizes_of(stages: Stages) -> tuple[int, ...]:
    """The sizes that enlarge no typical picture."""
    table = rows(stages.folder / "split", "fit", "normal")
    shorter = float(table[["width", "height"]].min(axis=1).median())
    return tuple(size for size in SIZES if size <= shorter)


def params_file() -> Path:
    """params.yaml with the artefacts of all benchmarks at seed 0, and the banks of each size."""
    path, values = WORK / "seed-0" / "average.yaml", yaml.safe_load(Path("params.yaml").read_text())
    values["train"]["detectors"] |= {named("patchcore", size): {"bank_size": BANK} for size in SIZES}
    path.write_text(yaml.safe_dump({**values, "seed": 0, "artefacts": str(WORK / "seed-0")}))
    return path


def trained(view: str, size: int) -> None:
    """One size through training, calibration and evaluation, each a process on one thread; one after the other."""
    name, at = named("patchcore", size), stages_of(view).of(named("patchcore", size))
    spent = {}
    for stage in ("train", "calibrate", "evaluate"):
        spent[stage] = staged(stage, view, name, params_file()).busy
    sys.stderr.write(f"{view} {name}: {spent}\n")
    add(WORK / "average-seconds.json", {f"{view}/{size}": {**spent, "at": str(at)}})


def scores(view: str, size: int) -> Scored:
    at = stages_of(view).of(named("patchcore", size))
    known = Calibration.read(at / "calibration" / "calibration.json")
    scale = scales_of(known, str(at)).image
    tested = pd.read_parquet(at / "evaluation" / "scores.parquet")
    tested = tested[tested["label"] != "uncertain"].sort_values("image_id")
    held = pd.read_parquet(at / "calibration" / "scores.parquet").sort_values("image_id")
    normals, found = ((table["score"].to_numpy(float) - scale.centre) / scale.spread for table in (held, tested))
    return Scored(normals, found, (tested["label"] == "anomalous").to_numpy())


def measured(view: str) -> dict[str, Any]:
    """What average.json holds of a view."""
    found = {size: scores(view, size) for size in sizes_of(stages_of(view))}
    spent = stored(WORK / "average-seconds.json")
    singles = {
        str(size): {**figures(one), "seconds": spent[f"{view}/{size}"], "auroc_interval": interval(view, size)}
        for size, one in found.items()
    }
    means = {}
    for chosen in dict.fromkeys((tuple(found), tuple(size for size in found if size in AUTO))):
        if len(chosen) > 1:
            mean = averaged([found[size] for size in chosen])
            minus = {str(size): apart(mean, one) for size, one in found.items()}
            means["+".join(map(str, chosen))] = {**figures(mean), "minus": minus}
    auto = [size for size in found if size in AUTO]
    return {"singles": singles, "means": means, "auto": "+".join(map(str, auto)), "commit": commit(), "seed": 0}


def interval(view: str, size: int) -> list[float]:
    metrics = read_json(stages_of(view).of(named("patchcore", size)) / "evaluation" / "metrics.json")
    return list(metrics["overall"]["image"]["interval"]["auroc"])


def averaged(parts: list[Scored]) -> Scored:
    return Scored(np.mean([p.normals for p in parts], 0), np.mean([p.tested for p in parts], 0), parts[0].anomalous)


def figures(one: Scored) -> dict[str, float]:
    """Image AUROC, and at the threshold of ALPHA the shares of misses and false alarms."""
    alarm = one.tested > threshold(one.normals, ALPHA)
    return {
        "auroc": round(float(roc_auc_score(one.anomalous, one.tested)), 4),
        "misses": round(float((~alarm)[one.anomalous].mean()), 3),
        "false_alarms": round(float(alarm[~one.anomalous].mean()), 3),
    }


def apart(one: Scored, other: Scored) -> list[float]:
    """AUROC of *one* less that of *other*, and its 95 % interval."""
    mine, theirs = (Sides(part.tested[~part.anomalous], part.tested[part.anomalous]) for part in (one, other))
    return [round(value, 4) for value in difference(mine, theirs)]


def page(known: dict[str, Any]) -> str:
    """The tables of all views that are measured."""
    singles, means = [], []
    for view, entry in known.items():
        for size, one in entry["singles"].items():
            low, high = one["auroc_interval"]
            seconds = one["seconds"]
            row = [view, size, f"{one['auroc']:.3f}", f"{low:.3f} to {high:.3f}", f"{one['misses']:.3f}"]
            spent = [f"{seconds[stage]:.0f}" for stage in ("train", "evaluate")]
            singles.append([*row, f"{one['false_alarms']:.3f}", *spent])
        best = max(entry["singles"], key=lambda size: entry["singles"][size]["auroc"])
        for name, mean in entry["means"].items():
            gain = {key: "{:+.3f} ({:+.3f} to {:+.3f})".format(*mean["minus"][key]) for key in ("256", best)}
            auto = " (auto)" if name == entry["auto"] else ""
            row = [f"{mean[key]:.3f}" for key in ("auroc", "misses", "false_alarms")]
            means.append([view, f"{name}{auto}", *row, gain["256"], f"{best}: {gain[best]}"])
    commits = ", ".join(sorted({str(entry["commit"])[:8] for entry in known.values()}))
    said = [f"# Input sizes of PatchCore\n\n{(__doc__ or '').strip()}\n\nCommit {commits}, seed 0."]
    head = ["view", "size", "image AUROC", "95 %", "misses", "false alarms", "s to train", "s to evaluate"]
    said.append(markdown(head, singles))
    head = ["view", "mean of", "image AUROC", "misses", "false alarms", "less 256 alone", "less the best alone"]
    return "\n\n".join([*said, markdown(head, means)]) + "\n"
