"""The champion of a view by the pipeline over all detectors, within a time, without a label.

`loupe pipeline --detectors all` with `pipeline.total_minutes`, from data to champion, with an empty cache and a
registry of its own; a detector for which no time is left is left out. *Regret*: image AUROC of the test split, of the
best candidate less the champion; labels choose nothing. Written to benchmarks/results/champion.json and champion.md.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common.results import RESULTS, WORK, add, commit, stored
from benchmarks.common.runner import options
from benchmarks.common.tables import joined, markdown, wrapped
from components.core.errors import StageError

OUT, MINUTES = RESULTS / "champion.json", 30.0
LEFT = re.compile(r"(\S+) is left out of \S+: no time is left")
FAILED = re.compile(r"\S+/(\S+) failed and is left out")
HEAD = (
    "view",
    "minutes",
    "asked",
    "candidates",
    "champion",
    "image AUROC",
    "best candidate",
    "its",
    "regret",
    "commit",
)


def main(arguments: list[str]) -> None:
    parser = options("champion", __doc__, report=True)
    parser.add_argument("--minutes", type=float, default=MINUTES, help="that the detectors of a view may take together")
    parser.add_argument("views", nargs="*", metavar="VIEW")
    asked = parser.parse_args(arguments)
    for view in [] if asked.report else asked.views or ["elpv-mono"]:
        add(OUT, {view: measured(view, asked.minutes)})
    OUT.with_suffix(".md").write_text(page(stored(OUT)))


def measured(view: str, minutes: float) -> dict[str, Any]:
    """A run of the pipeline and what it left. Raises StageError where it left no leaderboard."""
    folder = (WORK / "champion" / view).resolve()
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    params = own_params(folder, minutes)
    words = ["pipeline", "--detectors", "all", "--views", view, "--params", str(params)]
    started = time.monotonic()
    with (folder / "log").open("w") as log:
        environment = {**os.environ, "LOUPE_CACHE": str(folder / "cache")}
        subprocess.run([sys.executable, "-m", "components.cli", *words], stderr=log, stdout=log, env=environment)
    took = (time.monotonic() - started) / 60
    return {"commit": commit(), "asked": minutes, "minutes": took, **left(folder, view)}


def own_params(folder: Path, minutes: float) -> Path:
    """params.yaml with that time, and with artefacts and a registry in *folder*."""
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["pipeline"]["total_minutes"] = minutes
    values["artefacts"] = str(folder / "artefacts")
    values["registry"] = {**values.get("registry", {}), "folder": str(folder / "registry")}
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def left(folder: Path, view: str) -> dict[str, Any]:
    """Image AUROC of each candidate, the champion, and who had no time or failed."""
    board, log = folder / "artefacts/leaderboard/leaderboard.csv", (folder / "log").read_text()
    if not board.exists():
        raise StageError(f"{view}: the pipeline left no leaderboard; {folder / 'log'} says why")
    with board.open() as rows:
        candidates = {row["detector"]: float(row["image AUROC"]) for row in csv.DictReader(rows)}
    found = re.search(rf"^{re.escape(view)}: champion is (\S+), version", log, re.MULTILINE)
    taken = found or re.search(rf"{re.escape(view)}: (\S+), version \d+ \(", log)  # where one failed, of the log alone
    if taken is None:
        raise StageError(f"{view}: the pipeline registered no champion; {folder / 'log'} says why")
    lost = {"left_out": sorted(set(LEFT.findall(log))), "failed": sorted(set(FAILED.findall(log)))}
    return {"champion": taken[1], "candidates": candidates, **lost}


def page(found: Mapping[str, Any]) -> str:
    """results/champion.md."""
    about = wrapped(" ".join((__doc__ or "").split("Written to")[0].split()))
    lines = [row(view, entry) for view, entry in sorted(found.items())]
    said = [text for view, entry in sorted(found.items()) for text in missing(view, entry)]
    body = [markdown(HEAD, lines), *map(wrapped, said)] if lines else ["Nothing is measured yet."]
    return joined("# Champions by the pipeline", about, *body)


def row(view: str, entry: Mapping[str, Any]) -> list[str]:
    candidates, champion = entry["candidates"], entry["champion"]
    best = max(sorted(candidates), key=lambda name: candidates[name])
    auroc, most = candidates[champion], candidates[best]
    took = [f"{entry['minutes']:.1f}", f"{entry['asked']:g}", str(len(candidates))]
    return [view, *took, champion, f"{auroc:.3f}", best, f"{most:.3f}", f"{most - auroc:.3f}", str(entry["commit"])[:8]]


def missing(view: str, entry: Mapping[str, Any]) -> Iterable[str]:
    """Who is no candidate, and why."""
    for key, why in (("left_out", "no time was left"), ("failed", "failed")):
        if entry[key]:
            yield f"{view}, {why}: {', '.join(entry[key])}."
