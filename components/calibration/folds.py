"""Cross-conformal calibration: every good picture trains and calibrates, where too few could be held out.

K models, each trained without one fold, score that fold; the model that ships is trained on all pictures, and its
scores are held against these out-of-fold scores: docs/adr/0026. The idea is Vovk's (Cross-conformal predictors, Annals
of Mathematics and Artificial Intelligence 74, 2015); with all K models at the line it would be CV+ (Barber, Candes,
Ramdas, Tibshirani, Predictive inference with the jackknife+, Annals of Statistics 49, 2021).
"""

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from components.calibration.calibrate import (
    by_group,
    group_tables,
    in_torch,
    kept,
    require_enough,
    scale,
    summary,
)
from components.calibration.settings import CalibrationSettings
from components.core.artefacts import recorded, tree_hash, write_json
from components.core.errors import CalibrationError
from components.decision.calibration import Alike
from components.decision.conformal import needed, smallest

log = logging.getLogger("loupe")
FOLDS = 5  # without a number given
MARGIN = 1.25  # so many times the fewest normals are held out before folds are left alone: the split draws by chance
RULE = "cross-conformal, {} folds, out-of-fold scores for the model of all: anomalous when p <= alpha"
UNLIKE = 0.01  # p of a test that all folds score alike, below which a warning is given


def fold_count(calibrate: int, normals: int, settings: CalibrationSettings, where: Path, share: float | None) -> int:
    """How many folds calibrate *normals*, of which a split would hold out *calibrate*; 0: the split does.

    Raises CalibrationError, with the number that is missing, where neither way reaches alpha.
    """
    alpha, asked = settings.alpha, settings.folds
    if asked == 0 or (asked is None and calibrate >= math.ceil(MARGIN * needed(alpha))):
        require_enough(calibrate, alpha, where, share)
        return 0
    least = max(needed(alpha), asked or 0)
    if normals < least:
        raise CalibrationError(
            f"{where}: {normals} good training pictures are too few for a false-alarm rate of {alpha:g}, even if each "
            f"one calibrates; {least} are needed: add {least - normals}, or raise alpha to {smallest(normals):g}"
        )
    return min(asked or FOLDS, normals)


class Fold(NamedTuple):
    """A model, and the split on whose calibrate side are the pictures that it has not seen."""

    model: Path
    split: Path


def calibrate_folds(
    model: Path,
    folds: Sequence[Fold],
    data: Path,
    out: Path,
    settings: CalibrationSettings,
    alike: Alike | None = None,
    graphs: Path | None = None,
    warns: bool = True,
) -> Path:
    """``calibrate`` of *model*, which was trained on all pictures, from what the models of *folds* say of theirs.

    Where these score on different scales, it *warns*.
    """
    inputs = {"model": model / "model.safetensors", "split": folds[0].split / "split.parquet"}
    with recorded(out, "calibrate", settings, inputs) as scratch:
        parts = [_scored(fold, number, data, graphs) for number, fold in enumerate(folds)]
        table = pd.concat([part for part, _ in parts], ignore_index=True)
        scores, groups = table["score"].to_numpy(np.float64), table["group"].to_numpy()
        require_enough(len(scores), settings.alpha, out)
        if warns:
            _tell_unlike([part["score"].to_numpy() for part, _ in parts])
        result = {
            "model": tree_hash(model / "model.safetensors"),
            **summary(scores, settings),
            "rule": RULE.format(len(folds)),
            "folds": len(folds),
            "fold_medians": [float(part["score"].median()) for part, _ in parts],
            "groups": group_tables(by_group(scores, groups), settings),
            "map": scale(np.concatenate([maps for _, maps in parts])),
            **kept(alike),
        }
        write_json(scratch / "calibration.json", result)
        table.to_parquet(scratch / "scores.parquet", index=False)
    return out


def _scored(fold: Fold, number: int, data: Path, graphs: Path | None) -> tuple[pd.DataFrame, np.ndarray]:
    from components.datasets.loading import rows

    table = rows(fold.split, "calibrate", "normal")
    # A graph of the whole model of a fold would take longer than its few pictures do in torch.
    scores, maps = in_torch(fold.model, fold.split, [data / name for name in table["image_id"]], graphs)
    return table.assign(score=scores, fold=number)[["image_id", "group", "score", "fold"]], maps


def _tell_unlike(parts: Sequence[np.ndarray]) -> None:
    """Trainings that end on scales of their own make the pooled table say little; that cannot be mended here."""
    from scipy.stats import kruskal

    if min(map(len, parts)) > 1 and np.ptp(np.concatenate(parts)) > 0 and (p := kruskal(*parts).pvalue) < UNLIKE:
        log.warning(
            "the models of the folds score on different scales (p %.2g that they are alike): the false-alarm rate may "
            "be off; take a method with a memory bank, or more good pictures",
            p,
        )
