"""What a cascade, the early exit of FMR-Net, saves and costs.

Every test image of the view is scored twice on one thread, by the full graph and by the cascade (docs/adr/0014). Prints
JSON and adds it to benchmarks/results/cascade.json under VIEW/DETECTOR: the share that leaves early, ms per image, the
edge score's own AUROC; AUROC, false alarms and misses both ways. The split is taken from the artefacts that the params
file names, and must be the one the bundle was made of.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from benchmarks.common.results import RESULTS, WORK, add
from benchmarks.common.runner import clocked, options, tell
from components.core.artefacts import read_json, tree_hash
from components.core.errors import DataError
from components.core.progress import progress
from components.datasets.loading import rows
from components.decision.bundle import Bundle, run_of
from components.decision.seeing import seen
from components.pictures.decoding import decode
from components.pipeline.params import load_params
from components.pipeline.stages import Stages

EXITS = ("n", "share", "low", "high", "normal", "alpha")  # what of cascade.json is told
ORDER = {("edge", "normal"): 0, ("full", "normal"): 1, ("full", "anomalous"): 1, ("edge", "anomalous"): 2}


def main(arguments: list[str]) -> None:
    parser = options("cascade", __doc__)
    parser.add_argument("names", nargs="+", metavar="BUNDLE VIEW")
    parser.add_argument("--params", type=Path, default=WORK / "seed-0" / "params.yaml")
    parser.add_argument("--limit", type=int, help="Only so many test images, evenly drawn.")
    asked = parser.parse_args(arguments)
    bundles, views = asked.names[::2], asked.names[1::2]
    if len(bundles) != len(views):
        parser.error("give a view behind every bundle")
    for bundle, view in zip(bundles, views, strict=True):
        stages = Stages(load_params(asked.params), view)
        entry = measured(Path(bundle), stages.folder / "split", stages.data, asked.limit)
        add(RESULTS / "cascade.json", {f"{view}/{entry['detector']}": entry})
        tell(entry, indent=1)


def measured(bundle: Path, split: Path, data: Path, limit: int | None = None) -> dict[str, Any]:
    """Everything of one bundle on the labelled test images of *split*, whose ids lie below *data*."""
    opened = Bundle.open(bundle, threads=1)
    if opened.manifest.data != tree_hash(split / "split.parquet"):
        raise DataError(f"{bundle}: was made of another split than {split}; its test images may be others")
    table = rows(split, "test")
    table = table[table["label"].isin(["normal", "anomalous"])]
    if limit:
        table = table.iloc[np.linspace(0, len(table) - 1, min(limit, len(table))).astype(int)]
    plain, cascade = scored(opened, table, data)
    early = cascade["graph"] == "edge"
    normal = (table["label"] == "normal").to_numpy()
    let_out = early & ~normal & (cascade["decision"] == "normal")
    saved = 1 - cascade["ms"].mean() / plain["ms"].mean()
    return {
        "detector": opened.manifest.detector,
        "images": {"normal": int(normal.sum()), "anomalous": int((~normal).sum())},
        "exits": {k: v for k, v in read_json(bundle / "cascade.json").items() if k in EXITS},
        "early": {
            "all": share(early),
            "of_normal": share(early[normal]),
            "of_anomalous": share(early[~normal]),
            "normal_at_once": share(early & (cascade["decision"] == "normal")),
            "anomalous_at_once": share(early & (cascade["decision"] == "anomalous")),
        },
        "ms": {
            "full": round(float(plain["ms"].mean()), 2),
            "cascade": round(float(cascade["ms"].mean()), 2),
            "answered_early": round(float(cascade["ms"][early].mean()), 2) if early.any() else None,
            "saved_share": round(float(saved), 3),
        },
        "edge_auroc": round(float(roc_auc_score(~normal, cascade["edge"])), 4),
        "full": figures(plain, normal),
        "cascade": figures(cascade, normal),
        "defects_let_out_early": int(let_out.sum()),
        "of_them_found_by_full": int((let_out & (plain["decision"] == "anomalous")).sum()),
    }


def scored(bundle: Bundle, table: pd.DataFrame, data: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Answers of the full graph and of the cascade, row by row, taken in turn so that a busy moment hits both."""
    first, edge = decode(data / table["image_id"].iloc[0], rules=bundle.decoding), run_of(bundle.edge[0])
    for _ in range(3):  # both sessions allocate on their first runs
        bundle.score([first])
        seen(edge, [first], bundle.decoding)
    found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
    known = set(bundle.calibration.groups)
    for name, group in progress(list(zip(table["image_id"], table["group"], strict=True)), "test images"):
        pixels = decode(data / name, rules=bundle.decoding)
        for kind, records in zip((False, True), found, strict=True):
            answer, ms = clocked(bundle.answer, pixels, group if group in known else None, kind)
            told = {"graph": answer.graph, "score": answer.score, "decision": answer.decided.decision}
            records.append({**told, "p": answer.decided.p_value, "ms": ms})
        found[1][-1]["edge"] = float(seen(edge, [pixels], bundle.decoding)[0][0])
    return pd.DataFrame(found[0]), pd.DataFrame(found[1])


def figures(answers: pd.DataFrame, normal: np.ndarray) -> dict[str, float]:
    """AUROC by the order of ``ranked``, and the shares of false alarms and of misses."""
    anomalous = (answers["decision"] == "anomalous").to_numpy()
    return {
        "auroc": round(float(roc_auc_score(~normal, ranked(answers))), 4),
        "false_alarms": share(anomalous[normal]),
        "misses": share(~anomalous[~normal]),
    }


def ranked(answers: pd.DataFrame) -> np.ndarray:
    """How suspicious the images are, as ranks: normal at once, the full graph's, anomalous at once; within by score."""
    place = [ORDER[graph, decision] for graph, decision in zip(answers["graph"], answers["decision"], strict=True)]
    return answers.assign(place=place).groupby("place")["score"].rank().to_numpy() + len(answers) * np.array(place)


def share(which: Any) -> float:
    return round(float(np.mean(which)), 4)
