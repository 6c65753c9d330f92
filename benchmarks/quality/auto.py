"""The reference as the pipeline trains it, at the sizes of `size: auto`: rows of results/choice.json.

Each size is a member, trained on one thread, calibrated and evaluated by the pipeline's stages; then their ensemble is.
``loupe bench choice`` takes all of them for candidates in place of the reference at one size, as the pipeline does. A
view that auto sees at one size has its row by ``loupe bench fit``.
"""

import shutil
import sys
from functools import partial
from pathlib import Path

from benchmarks.common.evidence import AUTO, CHOICE, told
from benchmarks.common.results import WORK, add, commit
from benchmarks.common.runner import beside, options, staged
from benchmarks.common.views import ALL, params_file, prepare, stages_of
from components.core.artefacts import read_json
from components.detectors.catalogue import parted
from components.pipeline.sizing import Asked, Sized, members_file, plan
from components.pipeline.stages import Stages
from components.registry.choice import REFERENCE


def main(arguments: list[str]) -> None:
    parser = options("auto", __doc__, jobs=True)
    parser.add_argument("views", nargs="*", metavar="VIEW")
    asked = parser.parse_args(arguments)
    for view in asked.views or ALL:
        measured(view, asked.jobs)


def measured(view: str, jobs: int) -> None:
    """Store a row for each size and one for all as one; nothing where there is one size."""
    prepare(view)
    stages = stages_of(view)
    sized = plan(stages, REFERENCE, Asked())
    if len(sized.members) == 1:
        sys.stderr.write(f"{view}: one size ({sized.why}), whose row is {view}/{REFERENCE}\n")
        return
    params = members_file(stages, [sized], params_file(0), WORK / "seed-0" / f"{view}-auto.yaml")
    largest_first = sized.members[::-1]
    beside(jobs, partial(made, stages, params, ("train", "calibrate_member", "evaluate")), largest_first)
    made(stages, params, ("combine", "calibrate", "evaluate"), sized.name)
    add(CHOICE, {f"{view}/{row}": kept(stages.of(name)) for name, row in rows_of(sized).items()})


def rows_of(sized: Sized) -> dict[str, str]:
    """The name of each candidate's row: ``patchcore-384``, as behind an @ stands a seed."""
    return {name: f"{REFERENCE}-{parted(name)[1]}" for name in sized.members} | {sized.name: AUTO}


def made(stages: Stages, params: Path, steps: tuple[str, ...], name: str) -> None:
    """Some stages of one candidate, one after the other."""
    shutil.rmtree(stages.of(name), ignore_errors=True)
    for step in steps:
        staged(step, stages.view, name, params)
    sys.stderr.write(f"{stages.view} {name}: image AUROC {auroc_at(stages.of(name)):.3f}\n")


def auroc_at(at: Path) -> float:
    return float(read_json(at / "evaluation" / "metrics.json")["overall"]["image"]["auroc"])


def kept(at: Path) -> dict[str, object]:
    return told(at, auroc_at(at), commit())
