"""Which moves of the square leave the good pictures of seven views as normal as they came.

By ``components.training.pose``, on the fit and calibrate normals alone: the test split is not read. By move: the AUROC
of moved against unmoved pictures by their worst patch and by the mean of their map, each with the upper end of its
interval, which must be below the limit. Results: benchmarks/results/pose.md and pose.json.
"""

import sys
import time
from dataclasses import asdict
from typing import Any

from benchmarks.common.images import STORE
from benchmarks.common.results import RESULTS, add, commit, stored
from benchmarks.common.runner import one_thread, options
from benchmarks.common.tables import joined, markdown, stacked, wrapped
from benchmarks.common.views import ALL, prepared, stages_of
from components.backbones.features import FeatureStore
from components.datasets.loading import read_decoding
from components.training.pose import LIMIT, SIDES, Pose, measured, passes
from components.training.settings import MOVES
from components.training.train import file_images, moved_rows, normal_rows

OUT = RESULTS / "pose.md"
INTRODUCTION = (
    f"AUROC of moved good pictures against themselves as they come, and behind it the upper end of a one-sided 95 % "
    f"interval. A move is taken where both scores are below {LIMIT}; such rows are bold. 0.5: cannot be told apart."
)


def main(arguments: list[str]) -> None:
    parser = options("pose", __doc__, report=True)
    parser.add_argument("views", nargs="*", metavar="VIEW")
    asked = parser.parse_args(arguments)
    for view in () if asked.report else asked.views or ALL:
        add(OUT.with_suffix(".json"), {view: looked_at(view)})
        sys.stderr.write(f"{view}: {', '.join(taken(stored(OUT.with_suffix('.json'))[view])) or 'none'}\n")
    OUT.write_text(report(stored(OUT.with_suffix(".json"))))


def looked_at(view: str) -> dict[str, Any]:
    """What is measured of one view."""
    one_thread()
    stages = stages_of(view)
    prepared(stages, synthetic=False)
    split = stages.folder / "split"
    fit, calibrate = (
        file_images(stages.data, rows, read_decoding(split)) for rows in (normal_rows(split, "fit"), moved_rows(split))
    )
    started = time.process_time()
    found = measured(fit, calibrate, FeatureStore(STORE), "cpu")
    moves = {name: {side: asdict(pose) for side, pose in scores.items()} for name, scores in found.items()}
    seconds = round(time.process_time() - started, 1)
    return {"moves": moves, "fit": len(fit), "calibrate": len(calibrate), "CPU seconds": seconds, "commit": commit()}


def taken(entry: dict[str, Any]) -> list[str]:
    """The moves of a view's entry that are as normal."""
    moves = entry["moves"]
    return [name for name in MOVES if passes({side: Pose(**moves[name][side]) for side in SIDES})]


def report(found: dict[str, Any]) -> str:
    """results/pose.md."""
    views = [view for view in ALL if view in found]
    lines = [line(view, name, found[view]) for view in views for name in MOVES]
    counts = [[view, *(str(found[view][key]) for key in ("fit", "calibrate", "CPU seconds"))] for view in views]
    return joined(
        "# Turned and mirrored good pictures",
        wrapped(INTRODUCTION),
        stacked(
            ("view", "move", *(f"{side} patch" if side == "worst" else f"{side} of the map" for side in SIDES)),
            lines,
            2,
        ),
        "Pictures that were learned and moved, and what it took:",
        markdown(("view", "fit normals", "calibrate normals", "CPU seconds"), counts),
    )


def line(view: str, name: str, entry: dict[str, Any]) -> list[str]:
    words = [view, name]
    words += [
        f"{entry['moves'][name][side]['auroc']:.3f} ({entry['moves'][name][side]['upper']:.3f})" for side in SIDES
    ]
    return [f"**{word}**" for word in words] if name in taken(entry) else words
