"""From a folder of good pictures to a scored folder: `python examples/own_pictures.py GOOD NEW OUT [--preset tiny]`.

GOOD holds good pictures, NEW those to be scored. OUT gets the run, its bundle and scores.csv, the worst first.
`loupe fit` and `loupe score` do the same from the command line.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import pandas as pd

from components.core.progress import show_logs
from components.decision.batch import score
from components.pipeline.fit import FitRequest, fit_folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("good", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--alpha", type=float, default=0.05, help="false alarms among good pictures that are accepted")
    asked = parser.parse_args()
    show_logs()
    with tempfile.TemporaryDirectory() as folder:
        data = in_mvtec_layout(asked.good, Path(folder) / asked.good.resolve().name)
        run = fit_folder(FitRequest("patchcore", data, preset=asked.preset, alpha=asked.alpha), asked.out / "run")
    table = pd.read_parquet(score(run / "bundle", [asked.new], asked.out / "scores.parquet"))
    worst = table.sort_values("score", ascending=False)[["image_id", "score", "p_value", "decision"]]
    worst.to_csv(asked.out / "scores.csv", index=False)
    print(worst.head(10).to_string(index=False))  # noqa: T201


def in_mvtec_layout(good: Path, data: Path) -> Path:
    """A data set of good pictures only: train/good is enough."""
    shutil.copytree(good, data / "train" / "good")  # no link: Windows asks for a right that few users have
    return data


if __name__ == "__main__":
    main()
