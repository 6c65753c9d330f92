"""Loupe and the peer in turns: seconds of the processor for a training, for the whole job, and for scoring.

The same good pictures, test pictures, network and weights on both sides, 256 x 256 pixels, one thread. Each training
is a process of its own that begins without anything kept; which side begins changes with every round, and a fixed piece
of work beside them tells how steady the machine was. PatchCore: *training* (features and bank, without imports), *whole
job* (from the pictures to an exported model, all that the process takes; Loupe's is also checked, calibrated and held
against its graph), *scoring* (the test pictures: of the peer decoding and calls of the loaded model, of Loupe the whole
command). FastFlow: *an epoch*, the difference of two trainings by their epochs. *-plain* does with a picture what the
peer does: it is squeezed, and no turned copy is learned; without it Loupe is by itself, and may do both. anomalib lives
in an environment of its own (benchmarks/peer/README.md). Writes results/race.json and race.md.
"""

import argparse
import csv
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common.images import View
from benchmarks.common.results import RESULTS, WORK, add, commit, stored
from benchmarks.common.runner import options
from benchmarks.common.tables import joined, markdown, wrapped
from benchmarks.common.views import prepared
from benchmarks.peer.peer import request, require
from benchmarks.speed.speed import compared, staged
from benchmarks.speed.turns import Figures, in_turns, spent
from components.core.artefacts import write_json
from components.core.checks import check_known
from components.core.errors import SettingsError
from components.evaluation.metrics import image_metrics

HERE, OUT = Path(__file__).parent, RESULTS / "race.json"
MODELS = ("patchcore", "patchcore-plain", "fastflow", "fastflow-plain")  # for the help, which loads little
PLAIN = {"data": {"tiles": 0}, "train": {"moves": "none"}}  # what the peer does with pictures
EPOCHS = 1, 3  # of FastFlow: their difference is of epochs alone
FIXED = "import numpy as np; a = np.random.default_rng(0).random((1500, 1500)); [a @ a for _ in range(20)]"
HEAD = ("view", "model", "what", "anomalib s", "Loupe s", "times as fast (95 %)", "commit")
BESIDE = ("race", "good", "to test", "rounds", "fixed work s", "anomalib's image AUROC", "Loupe's")
ABOUT = (
    "Seconds of the processor, medians of rounds in which both sides take turns. Torch and NumPy have one thread, ONNX "
    "Runtime in Loupe all cores: their seconds are counted together. *Times as fast*: "
    "anomalib over Loupe in the same round, with the 95 % interval where there are three rounds. anomalib 2.7.0 learns "
    "from all good pictures, Loupe from four fifths and calibrates on the rest. Its PatchCore has about 800 patches, "
    "ours 10,000. *-plain*: each picture is squeezed and none turned, as anomalib does it; without: as Loupe does by "
    "itself, which cuts long pictures into squares and learns turned copies where these are as normal (PatchCore until "
    "ADR 0062)."
)


@dataclass(frozen=True)
class Pictures:
    """Copies of a view's pictures: *good* to learn from, below data/train/good, and *test* in their order."""

    folder: Path
    good: list[str]
    test: list[str]
    labels: np.ndarray

    @classmethod
    def of(cls, view: View, folder: Path) -> "Pictures":
        prepared(view.stages, synthetic=False)
        asked = request(view, "patchcore", folder / "unused.npz", 1)
        places = folder / "data/train/good", folder / "test"
        good, test = (copied(asked[side], place) for side, place in zip(("train", "test"), places, strict=True))
        return cls(folder, good, test, view.labels())


def copied(paths: Sequence[str], place: Path) -> list[str]:
    """Numbered copies in the order of *paths*: of the same names in two folders, both stay."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return [str(shutil.copy(path, place / f"{i:05d}{Path(path).suffix}")) for i, path in enumerate(paths)]


def main(arguments: list[str]) -> None:
    asked = _options(arguments)
    for name in [] if asked.report else asked.names:
        require(asked.python)
        add(OUT, {name: measured(name, asked.python, asked.rounds)})
    OUT.with_suffix(".md").write_text(page(stored(OUT)))


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = options("race", __doc__, report=True)
    parser.add_argument("--python", type=Path, default=HERE / ".venv/bin/python", help="of the peer's environment")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("names", nargs="*", metavar="VIEW/MODEL", help=f"models: {', '.join(MODELS)}")
    return parser.parse_args(arguments)


def measured(name: str, python: Path, rounds: int) -> dict[str, Any]:
    """All rounds of one model on one view, and the image AUROC of both sides' raw scores of the last one."""
    view_name, _, model = name.partition("/")
    check_known(model, RACES, name)
    folder = (WORK / "race" / view_name).resolve()
    view = View.of(view_name)
    pictures = Pictures.of(view, folder)
    peer, ours = RACES[model]
    sides = {"anomalib": partial(peer, pictures, view, python), "Loupe": partial(ours, pictures)}
    scores = {side: folder / f"{side}.json" for side in sides}
    for path in scores.values():
        path.unlink(missing_ok=True)  # of another model: what trains alone leaves none
    found = in_turns({**sides, "fixed": fixed}, rounds)
    told = {side: auroc(pictures, path) for side, path in scores.items() if path.exists()}
    return {"commit": commit(), "pictures": [len(pictures.good), len(pictures.test)], "auroc": told, "rounds": found}


def auroc(pictures: Pictures, scores: Path) -> float:
    return float(image_metrics(pictures.labels, np.array(json.loads(scores.read_text())))["auroc"])


def fixed() -> Figures:
    """What does not change: how steady the machine is."""
    return {"s": spent([sys.executable, "-c", FIXED], Path())}


def answered(pictures: Pictures, view: View, python: Path, **asked: Any) -> tuple[float, dict[str, float], np.ndarray]:
    """The peer's answer to a request: seconds of the process, of each part, and its scores."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "request.json"
        known = request(view, "patchcore", path.with_suffix(".npz"), 1)
        write_json(path, {**known, "train": pictures.good, "test": [], **asked})
        whole = left([str(python), str(HERE / "train.py"), str(path)], Path(scratch), path.with_suffix(".npz"))
        with np.load(path.with_suffix(".npz")) as found:
            return whole, json.loads(str(found["processor"])), found["scores"]


def left(words: Sequence[str], folder: Path, made: Path) -> float:
    """Seconds of a command that leaves *made*. Raises SettingsError where it does not."""
    taken = spent(words, folder)
    if not made.exists():
        raise SettingsError(f"`{' '.join(words)}` ended without {made.name}; run it to see why")
    return taken


def peer_patchcore(pictures: Pictures, view: View, python: Path) -> Figures:
    graph = str(pictures.folder / "peer.onnx")
    all_of_it, parts, scores = answered(pictures, view, python, test=pictures.test, graph=graph)
    write_json(pictures.folder / "anomalib.json", scores.tolist())
    return {"training": parts["fit"], "whole job": all_of_it - parts["score"], "scoring": parts["score"]}


def ours_patchcore(pictures: Pictures, sections: dict[str, Any] | None = None) -> Figures:
    with tempfile.TemporaryDirectory() as scratch:
        run, table = Path(scratch) / "run", Path(scratch) / "scores.csv"
        stages = fitted(pictures, "patchcore", run, sections=sections)
        words = [sys.executable, "-m", "components.cli", "score", str(run / "bundle"), str(pictures.folder / "test")]
        scoring = left([*words, "--out", str(table)], Path.cwd(), table)
        with table.open() as rows:
            scores = {Path(row["image_id"]).name: float(row["score"]) for row in csv.DictReader(rows)}
    write_json(pictures.folder / "Loupe.json", [scores[Path(path).name] for path in pictures.test])
    return {"training": stages["train"], "whole job": sum(stages.values()), "scoring": scoring}


def fitted(pictures: Pictures, detector: str, run: Path, sections: Any = None, **overrides: Any) -> Figures:
    """Seconds of each stage of `loupe fit` with an empty cache; *sections* as in params.yaml."""
    more = [json.dumps(overrides), json.dumps(sections or {})]
    words = [detector, str(pictures.folder / "data"), str(run), "fitted", *more]
    return staged(Path.cwd(), words, run.parent, LOUPE_CACHE=str(run.parent / "cache"))


def peer_fastflow(pictures: Pictures, view: View, python: Path) -> Figures:
    few, many = (answered(pictures, view, python, model="fastflow", epochs=n)[1]["fit"] for n in EPOCHS)
    return {"an epoch": (many - few) / (EPOCHS[1] - EPOCHS[0])}


def ours_fastflow(pictures: Pictures, sections: dict[str, Any] | None = None) -> Figures:
    taken = []
    for n in EPOCHS:
        with tempfile.TemporaryDirectory() as scratch:
            taken.append(fitted(pictures, "fastflow", Path(scratch) / "run", sections, epochs=n)["train"])
    return {"an epoch": (taken[1] - taken[0]) / (EPOCHS[1] - EPOCHS[0])}


class Race(NamedTuple):
    """What each side does with the same pictures."""

    peer: Callable[[Pictures, View, Path], Figures]
    ours: Callable[[Pictures], Figures]


RACES = {
    "patchcore": Race(peer_patchcore, ours_patchcore),
    "patchcore-plain": Race(peer_patchcore, partial(ours_patchcore, sections=PLAIN)),
    "fastflow": Race(peer_fastflow, ours_fastflow),
    "fastflow-plain": Race(peer_fastflow, partial(ours_fastflow, sections=PLAIN)),
}


def page(found: dict[str, Any]) -> str:
    """results/race.md: what each side took, and how accurate what it made is."""
    lines = [line for name, entry in sorted(found.items()) for line in rows(name, entry)]
    beside = [[name, *accuracy(entry)] for name, entry in sorted(found.items())]
    body = (wrapped(ABOUT), markdown(HEAD, lines), markdown(BESIDE, beside)) if lines else ("Nothing is measured yet.",)
    return joined("# In turns with anomalib", *body)


def rows(name: str, entry: dict[str, Any]) -> list[list[str]]:
    view, _, model = name.partition("/")
    rounds = entry["rounds"]
    lines = []
    for what in rounds["Loupe"][0]:
        theirs, ours = ([one[what] for one in rounds[side]] for side in ("anomalib", "Loupe"))
        lines.append([view, model, what, f"{np.median(theirs):.1f}", f"{np.median(ours):.1f}", compared(theirs, ours)])
    return [[*line, str(entry["commit"])[:7]] for line in lines]


def accuracy(entry: dict[str, Any]) -> list[str]:
    """Pictures, how far the fixed work moved, and the image AUROC of both sides where there are scores."""
    steady = [one["s"] for one in entry["rounds"]["fixed"]]
    told = [f"{entry['auroc'][side]:.3f}" if side in entry["auroc"] else "-" for side in ("anomalib", "Loupe")]
    return [*map(str, entry["pictures"]), str(len(steady)), f"{min(steady):.1f} to {max(steady):.1f}", *told]
