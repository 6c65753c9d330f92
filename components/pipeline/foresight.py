"""What a fit will do and how much memory it will need, before it begins; what does not fit is refused with advice."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from components.core.cache import features_folder
from components.core.errors import LoupeError, SettingsError
from components.core.runtime import SHARE, cores
from components.core.system import available_memory_mb, resident_mb
from components.datasets.loading import read_split
from components.detectors.catalogue import parted
from components.pipeline.sizing import Sized, squares_of, with_overrides
from components.pipeline.stages import Stages

log = logging.getLogger("loupe")
MIB = 2**20
EXPORT, DRAWING, FEWER = (
    "its export",
    "drawing synthetic anomalies",
    f"set {SHARE}=1 in the environment, or give smaller pictures",
)
DRAWN = 40.0  # bytes of each pixel of the largest picture, for each that an anomaly is being drawn on or waits
PARITY = 80.0  # for each member, while the graph is held against its detector: two pictures in a batch
KNOBS = ("batch_size", "bank_size", "copies")  # settings that memory grows with


class Need(NamedTuple):
    """MiB of one training, on top of a process in which everything is loaded, and what they are of."""

    detector: str
    pictures: int  # rows that are learned from
    phase: str  # in which it is most
    training: int
    mapped: int  # of the feature store, which the system takes back where others need it
    export: int
    minutes: float  # of all trainings: where folds calibrate they are several
    drawing: int = 0  # of synthetic anomalies on its pictures

    @property
    def most(self) -> int:
        """MiB that cannot be taken back."""
        return max(self.training, self.export, self.drawing)


def need(stages: Stages, name: str, members: int = 1) -> Need:
    """What detector *name*, one of so many *members* of a mean, needs on a view that is split and whose settings stand.

    Loads torch, and measures once.
    """
    from components.training.memory import measured

    found = measured(parted(name)[0], stages.params.train.method(name))
    sides = read_split(stages.folder / "split")
    good = sides[sides["label"] == "normal"]["split"].value_counts()
    squares = squares_of(stages)
    pictures, checked = squares * int(good.get("fit", 0)), 2 * squares * int(good.get("calibrate", 0))
    store = features_folder(stages.params.train.store)
    return Need(
        name,
        pictures,
        found.widest(pictures),
        round(_each(stages, found.training(pictures, checked, store, largest(sides)))),
        round(found.mapped(pictures, checked)),
        round(found.export() + PARITY * members * largest(sides) / MIB),
        found.minutes(pictures) * (1 + stages.folds),
        round(DRAWN * (cores() + 1) * largest(sides) / MIB),
    )


def largest(sides: pd.DataFrame) -> int:
    """Pixels of the largest picture of a split."""
    return int((sides["width"] * sides["height"]).max())


def seconds(stages: Stages, sized: Sized) -> float:
    """About how long the trainings of a detector at its sizes take on the processor.

    0 where a GPU trains, on which nothing was measured, and where it cannot be trained, which its training says.
    """
    import torch

    if torch.cuda.is_available():
        return 0.0
    own = with_overrides(stages, [sized])
    try:
        return 60 * sum(need(own, name).minutes for name in sized.members)
    except LoupeError:
        return 0.0


def _each(stages: Stages, training: float) -> float:
    """Of *training* MiB in each process, what all of them take that train one detector together."""
    devices = stages.params.train.devices
    return training if devices == 1 else devices * (training + resident_mb())


def require_room(stages: Stages, names: Sequence[str]) -> None:
    """Raises SettingsError where a training of *names*, the members of one mean, would not fit in the memory that is
    available; warns instead where ``train.memory`` says so. Where the system does not tell, nothing is asked."""
    if (free := available_memory_mb()) is None:
        return
    for name in names:
        found = need(stages, name, len(names))
        if found.most <= free:
            continue
        said = f"{_sentence(found)} where {free} are available; {_smaller(found, stages.params.train.method(name))}"
        if stages.params.train.memory == "refuse":
            raise SettingsError(f"{said}, or try it all the same with --set train.memory=warn")
        log.warning("%s", said)


def advice(settings: Any) -> str:
    """What makes it smaller, of what this detector has."""
    known = {field.name for field in dataclasses.fields(settings)}
    knobs = [f"a smaller {name} (now {getattr(settings, name)})" for name in KNOBS if name in known]
    return f"give {', '.join(['a smaller --size', *knobs])}"


def _smaller(found: Need, settings: Any) -> str:
    if _widest(found) == DRAWING:
        return FEWER
    return advice(settings) + (", or smaller pictures" if _widest(found) == EXPORT else "")


def _sentence(found: Need) -> str:
    return f"{found.detector}: {_widest(found)} on {found.pictures} pictures needs about {found.most} MiB"


def _widest(found: Need) -> str:
    if found.drawing == found.most:
        return DRAWING
    return EXPORT if found.export > found.training else f"its phase {found.phase}"


def told(stages: Stages, sized: Sized, needs: Sequence[Need], out: str) -> list[str]:
    """Lines of ``loupe fit --dry-run``: pictures, sizes, phases, memory, minutes, place."""
    sides = read_split(stages.folder / "split")
    counts = Counter(zip(map(str, sides["split"]), map(str, sides["label"]), strict=True))
    pictures = ", ".join(f"{side} {n} {label}" for (side, label), n in sorted(counts.items()))
    free = available_memory_mb()
    lines = [f"pictures: {pictures}", f"sizes: {' + '.join(sized.members)} ({sized.why})"]
    for found in needs:
        settings = stages.params.train.method(found.detector)
        lengths = ", ".join(f"{key} {getattr(settings, key)}" for key in _lengths(settings)) or "nothing by gradients"
        peak = resident_mb() + max(found.training + found.mapped, found.export, found.drawing)
        lines += [
            f"{found.detector}: {lengths}; {_long(found.minutes)} of training",
            f"{found.detector}: peak about {peak} MiB, of which {_widest(found)} takes {found.most}",
        ]
    lines.append(f"available: {free} MiB" if free is not None else "available: this system does not tell")
    return [*lines, f"the run would go to {out}; nothing was trained, nothing was written there"]


def _long(minutes: float) -> str:
    return f"about {minutes:.1f} minutes" if minutes >= 1 else "less than a minute"


def _lengths(settings: Any) -> list[str]:
    from components.detectors.presets import counts

    return [*counts(settings), *(name for name in KNOBS if hasattr(settings, name))]
