"""What trained detectors scored of the pictures that check them, kept as text: rules of choice are compared by it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.common.results import RESULTS

CHOICE = RESULTS / "choice.json"


def told(check: Path, auroc: float, commit: str | None) -> dict[str, Any]:
    """What choice.json keeps of a trained detector: its scores by kind, and its image AUROC on the test split."""
    table = pd.read_parquet(check)
    scores = {str(kind): " ".join(f"{s:.5g}" for s in part["score"]) for kind, part in table.groupby("kind")}
    return {"auroc": auroc, "scores": scores, "commit": commit}


def table_of(entry: Mapping[str, Any]) -> pd.DataFrame:
    """What a rule sees of a detector, from an entry of choice.json; a picture is named by its place in its kind."""
    parts = []
    for kind, text in sorted(entry["scores"].items()):
        scores = [float(score) for score in text.split()]
        names = [str(number) for number in range(len(scores))]
        parts.append(pd.DataFrame({"image_id": names, "kind": kind, "score": scores}))
    return pd.concat(parts, ignore_index=True)
