"""Champion and challenger on the same pictures, both as exported: what the gate decides by.

No test label is among them. Frozen: good images of the champion's own data that neither has learned from, and
synthetic anomalies on them. The drifted window: the candidates' holdout, as the line saw it. Reviewed defects, where
there are any.
"""

import statistics
from pathlib import Path

import numpy as np
import pandas as pd

from components.core.artefacts import read_json, write_json
from components.core.progress import progress
from components.core.records import ScoreRecord
from components.core.settings import plain
from components.datasets.loading import read_split
from components.decision.batch import record
from components.decision.bundle import Bundle
from components.registry.gate import Figures


def compare(
    champion: Path, challenger: Path, split: Path, synthetic: Path, data: Path, source: str, out: Path
) -> dict[str, Figures]:
    """Figures of both bundles, also written to *out*."""
    bundles = {"champion": Bundle.open(champion), "challenger": Bundle.open(challenger)}
    scored = _scored(bundles, _sets(split, synthetic, data, source))
    figures = {name: _figures(bundle, scored[name]) for name, bundle in bundles.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_json(out, {name: plain(value) for name, value in figures.items()})
    return figures


def _sets(split: Path, synthetic: Path, data: Path, source: str) -> dict[str, list[Path]]:
    table, made = read_split(split), pd.read_parquet(synthetic / "synthetic.parquet")
    production = table["image_id"].str.startswith(f"production/{source}/")
    frozen = table[~production & (table["split"] == "calibrate") & (table["label"] == "normal")]["image_id"]
    parts = {
        "frozen": [data / name for name in frozen],
        "synthetic": [synthetic / name for name in made[made["origin"].isin(set(frozen))]["image_id"]],
    }
    for name, label in (("window", "uncertain"), ("reviewed", "anomalous")):
        rows = table[production & (table["split"] == "test") & (table["label"] == label)]
        parts[name] = [data / image for image in rows["image_id"]]
    return parts


def _scored(bundles: dict[str, Bundle], sets: dict[str, list[Path]]) -> dict[str, dict[str, list[ScoreRecord]]]:
    """Records by bundle and part. The bundles take turns picture by picture, so that a busy moment slows both."""
    found: dict[str, dict[str, list[ScoreRecord]]] = {name: {part: [] for part in sets} for name in bundles}
    for part, paths in sets.items():
        for path in progress(paths, f"champion and challenger: {part}"):
            for name, bundle in bundles.items():
                found[name][part].append(record(bundle, path, path.name, part))
    return found


def _figures(bundle: Bundle, scored: dict[str, list[ScoreRecord]]) -> Figures:
    from sklearn.metrics import roc_auc_score  # a second; whoever plans a retraining comes by this file

    normal, made = scored["frozen"], scored["synthetic"]
    labels = np.r_[np.zeros(len(normal)), np.ones(len(made))]
    auroc = roc_auc_score(labels, [r["score"] for r in (*normal, *made)]) if made and normal else 0.0
    return Figures(
        synthetic_auroc=float(auroc),
        synthetic_recall=_alarms(made),
        frozen_alarms=_alarms(normal),
        frozen=len(normal),
        window_alarms=_alarms(scored["window"]),
        window=len(scored["window"]),
        reviewed_recall=_alarms(scored["reviewed"]),
        reviewed=len(scored["reviewed"]),
        latency_ms=statistics.median(r["latency_ms"] for r in (*normal, *made, *scored["window"])),
        parity_error=_parity(bundle.folder),
        alpha=bundle.calibration.alpha,
        calibration_n=bundle.calibration.n,
    )


def _alarms(records: list[ScoreRecord]) -> float:
    return sum(r["decision"] == "anomalous" for r in records) / len(records) if records else 0.0


def _parity(folder: Path) -> float:
    parity = read_json(folder / "parity.json")
    return float(max(parity["score_error"], parity["map_error"]) / parity["tolerance"])
