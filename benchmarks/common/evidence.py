"""What trained detectors scored of the pictures that check them, kept as text: rules of choice are compared by it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common.results import RESULTS
from components.core.records import NORMAL
from components.decision.calibration import standardised
from components.decision.paired import auroc
from components.registry.choice import REFERENCE

CHOICE = RESULTS / "choice.json"
AUTO = f"{REFERENCE}-auto"  # the row of the reference at all sizes that auto takes, as one


def told(at: Path, auroc: float, commit: str | None) -> dict[str, Any]:
    """What choice.json keeps of the trained detector at *at*.

    Its scores by kind of check, and on the test split its image AUROC and its scores by label, in the order of names.
    """
    checked = pd.read_parquet(at / "model" / "check.parquet")
    tested = pd.read_parquet(at / "evaluation" / "scores.parquet").sort_values("image_id")
    return {"auroc": auroc, "scores": _text(checked, "kind"), "tested": _text(tested, "label"), "commit": commit}


def _text(table: pd.DataFrame, by: str) -> dict[str, str]:
    return {str(value): " ".join(f"{s:.5g}" for s in part["score"]) for value, part in table.groupby(by)}


def auroc_of(entries: Sequence[Mapping[str, Any]]) -> float:
    """Image AUROC of the ensemble of detectors on the test split, the mean of their standardised scores."""
    means = []
    for label in ("normal", "anomalous"):
        pairs = [(numbers(entry["tested"][label]), numbers(entry["scores"][NORMAL])) for entry in entries]
        means.append(np.mean([standardised(*pair) for pair in pairs], axis=0))
    return auroc(*means)


def numbers(text: str) -> np.ndarray:
    """The scores of a text of them."""
    return np.array([float(score) for score in text.split()])


def table_of(entry: Mapping[str, Any]) -> pd.DataFrame:
    """What a rule sees of a detector, from an entry of choice.json; a picture is named by its place in its kind."""
    parts = []
    for kind, text in sorted(entry["scores"].items()):
        scores = numbers(text)
        names = [str(number) for number in range(len(scores))]
        parts.append(pd.DataFrame({"image_id": names, "kind": kind, "score": scores}))
    return pd.concat(parts, ignore_index=True)
