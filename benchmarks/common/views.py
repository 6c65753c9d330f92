"""The views that detectors are measured on: their params file of a seed, and what stands before a training."""

from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from benchmarks.common.results import WORK
from components.core.artefacts import locked
from components.pipeline.params import load_params

if TYPE_CHECKING:
    from components.pipeline.stages import Stages

VIEWS = ("mtd", "screw", "elpv-mono", "elpv-poly")  # what the studies of mechanisms and floors look at
ALL = (*VIEWS, "bottle", "kolektor_sdd", "bsdata")


def named(name: str) -> tuple[str, str, int]:
    """View, detector and seed of VIEW/DETECTOR[@SEED]; the seed is 0 unless named."""
    view, _, rest = name.partition("/")
    detector, _, seed = rest.partition("@")
    return view, detector, int(seed or 0)


def params_file(seed: int) -> Path:
    """params.yaml with this seed and artefacts of the benchmark's own."""
    folder = WORK / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    values = yaml.safe_load(Path("params.yaml").read_text())
    path, text = folder / "params.yaml", yaml.safe_dump({**values, "seed": seed, "artefacts": str(folder)})
    with locked(WORK / ".params"):  # the stages of another detector may be reading it
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    return path


def stages_of(view: str, seed: int = 0) -> "Stages":
    """The stages of a view with the artefacts of a seed."""
    from components.pipeline.stages import Stages  # only here: whoever asks for names does not wait for pandas

    return Stages(load_params(params_file(seed)), view)


def prepare(view: str, seed: int = 0) -> None:
    prepared(stages_of(view, seed))


def prepared(stages: "Stages", synthetic: bool = True) -> None:
    """Run what stands before training and has not run yet, without *synthetic* up to the split."""
    for part in stages.members:
        prepared(part, synthetic)
    steps = [(stages.split, stages.folder / "split")]
    if synthetic:
        steps.append((stages.synthesise, stages.folder / "synthetic"))
    if not stages.members:
        steps[:0] = [(stages.manifest, stages.shared / "manifest"), (stages.validate, stages.shared / "validation")]
    for step, made in steps:
        if not made.exists():
            step()
