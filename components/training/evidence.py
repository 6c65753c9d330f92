"""What is known of a trained detector without a label: how it finds each kind of anomaly, and what it takes for one.

Scores of the calibrate normals, of the anomalies made on them, and of the same normals as they may come tomorrow
(``synthesis.nuisance``). They describe; the threshold comes from calibration.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from components.backbones.runtime import through_graphs
from components.core.artefacts import write_json
from components.core.progress import progress
from components.core.records import CHECK_COLUMNS, CHECK_TABLE, NORMAL, NUISANCE, SIZE_NAMES, SIZES
from components.core.runtime import side_by_side
from components.detectors.contract import Detector
from components.pictures.decoding import Decoding
from components.pictures.framing import framed
from components.pictures.kept import decode
from components.synthesis.nuisance import NUISANCES
from components.synthesis.synthesise import generator
from components.training.model import score_pictures
from components.training.select import against, finite

MOST = 100  # pictures that nuisances are drawn on
ALARM = 0.95  # quantile of the calibrate normals above which a nuisance counts as an alarm


def with_nuisances(
    detector: Detector, told: pd.DataFrame, data: Path, rules: Decoding, seed: int, graphs: Path | None = None
) -> pd.DataFrame:
    """CHECK_COLUMNS of a detector: those of *told*, with their scores already, and of nuisances on its normals.

    *graphs* is where those of frozen backbones lie, if they are kept.
    """
    names = list(told[told["kind"] == NORMAL]["image_id"])
    with through_graphs(detector, graphs):
        found = nuisances(detector, names, [data / name for name in names], rules, seed)
    return pd.concat([told.assign(score=finite(told["score"].to_numpy())), found], ignore_index=True)


def write_evidence(checked: pd.DataFrame, out: Path) -> None:
    """CHECK_TABLE and what it comes to, check.json, into the folder of a model."""
    checked.to_parquet(out / CHECK_TABLE, index=False)
    write_json(out / "check.json", summary(checked))


def of_folds(models: Sequence[Path]) -> pd.DataFrame:
    """What the *models* of folds were checked with, each picture by the one that had not seen it."""
    return pd.concat([pd.read_parquet(model / CHECK_TABLE) for model in models], ignore_index=True)


def nuisances(
    detector: Detector, names: Sequence[str], paths: Sequence[Path], rules: Decoding, seed: int
) -> pd.DataFrame:
    """CHECK_COLUMNS of some of the normals, each under one nuisance; the nuisances take turns."""
    rules, step = detector.rules(rules), max(1, len(paths) // MOST)
    chosen = list(zip(names, paths, strict=True))[::step][:MOST]
    kinds = [list(NUISANCES)[number % len(NUISANCES)] for number in range(len(chosen))]
    asked = [(kind, path) for kind, (_, path) in zip(kinds, chosen, strict=True)]
    drawn = side_by_side(lambda one: _drawn(one[0], one[1], rules, seed), asked)
    shown = progress(drawn, "good pictures as they may come", len(asked))
    found = [score_pictures(detector, [picture], rules) for picture in shown]
    scores = finite(np.concatenate(found))
    rows = ((name, NUISANCE + kind, np.nan, s) for (name, _), kind, s in zip(chosen, kinds, scores, strict=True))
    return pd.DataFrame(rows, columns=list(CHECK_COLUMNS))


def _drawn(kind: str, path: Path, rules: Decoding, seed: int) -> np.ndarray:
    # The whole picture is moved or lit otherwise, and the region of interest stays where it is.
    seen = decode(path, rules=rules.whole)
    if rules.window:  # all frames alike, as a camera that is moved or a lamp that fades would have it
        return np.stack([_under(kind, frame, path, rules, seed) for frame in seen])
    return _under(kind, seen, path, rules, seed)


def _under(kind: str, whole: np.ndarray, path: Path, rules: Decoding, seed: int) -> np.ndarray:
    return framed(NUISANCES[kind](whole, generator(seed, kind, path.name)), rules.roi)


def summary(scores: pd.DataFrame) -> dict[str, Any]:
    """What check.json holds of CHECK_COLUMNS: AUROC of anomalies by kind and by size, and alarms by nuisance."""
    normal = scores[scores["kind"] == NORMAL]["score"].to_numpy()
    other = scores[scores["kind"].str.startswith(NUISANCE)]
    made = scores[~scores.index.isin(other.index) & (scores["kind"] != NORMAL)]
    sizes = pd.cut(made["extent"], SIZES, right=False, labels=list(SIZE_NAMES))
    limit = np.quantile(normal, ALARM)
    return {
        "normals": len(normal),
        "kinds": {str(kind): _auroc(normal, part["score"]) for kind, part in made.groupby("kind")},
        "extents": {str(size): _auroc(normal, p["score"]) for size, p in made.groupby(sizes, observed=True)},
        "nuisances": {
            str(kind).removeprefix(NUISANCE): {
                **_auroc(normal, part["score"]),
                "alarms": float((part["score"] > limit).mean()),
            }
            for kind, part in other.groupby("kind")
        },
    }


def _auroc(normal: np.ndarray, found: pd.Series) -> dict[str, Any]:
    return {"auroc": against(normal, found.to_numpy()), "of": len(found)}
