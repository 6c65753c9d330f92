"""Which defects a detector sees: ``python -m benchmarks.defects [VIEW ...]``.

Image AUROC of the good test images against those of one kind of defect, for every detector that ``benchmarks.fit`` has
trained (seed 0), from the scores of its evaluation. It tells where a figure comes from and chooses nothing. Writes
results/defects.md.
"""

import sys
from pathlib import Path

import pandas as pd
from sklearn.metrics import roc_auc_score

from benchmarks.floor import trained_scores
from benchmarks.table import markdown
from benchmarks.variant import View
from components.datasets.loading import rows
from components.detectors import CATALOGUE

RESULTS = Path(__file__).parent / "results" / "defects.md"
VIEWS = ("mtd", "screw")  # those whose defects have names
ABOUT = """Image AUROC of all good test images against the images of one kind of defect, preset `cpu`, seed 0. Behind
each kind: how many images it has."""


def main(views: list[str]) -> None:
    parts = [f"## {view}\n\n{table(view)}" for view in views or VIEWS]
    RESULTS.write_text("\n\n".join(["# By kind of defect", ABOUT, *parts]) + "\n")


def table(view: str) -> str:
    """One line per trained detector, in Markdown."""
    kinds = rows(View.of(view).split, "test", "anomalous").set_index("image_id")["defect"]
    files = {name: path for name in CATALOGUE if (path := trained_scores(f"{view}/{name}")).exists()}
    found = {name: by_kind(pd.read_parquet(path), kinds) for name, path in files.items()}
    counts = kinds.value_counts().sort_index()
    head = ("detector", *(f"{kind} ({counts[kind]})" for kind in counts.index))
    return markdown(head, ([name, *(f"{line[kind]:.3f}" for kind in counts.index)] for name, line in found.items()))


def by_kind(scores: pd.DataFrame, kinds: pd.Series) -> dict[str, float]:
    """AUROC per kind; *kinds* by image id."""
    good = scores.loc[scores["label"] == "normal", "score"]
    bad = scores[scores["label"] == "anomalous"].assign(kind=lambda t: t["image_id"].map(kinds))
    return {
        str(kind): float(roc_auc_score([0] * len(good) + [1] * len(part), [*good, *part["score"]]))
        for kind, part in bad.groupby("kind")
    }


if __name__ == "__main__":
    main(sys.argv[1:])
