"""At which input sizes a detector is trained: as asked for, or by its pictures and the budget (docs/sizes.md)."""

import logging
import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from components.core.errors import SettingsError
from components.core.settings import plain
from components.datasets.adapters import ADAPTERS, adapter
from components.datasets.loading import read_decoding, read_split
from components.detectors.catalogue import Sizes, detector_class, every, named, parted, size_in, sizes_of
from components.pictures.tiles import MOST, grid
from components.pipeline.stages import SIZES, Stages
from components.registry.choice import REFERENCE

log = logging.getLogger("loupe")
TINY = "tiny"  # the preset of tests, which says nothing of pictures
FACTORS = (1.0, 1.5, 2.0)  # of the preset's size: 256, 384, 512; measured with these, docs/sizes.md
BANK = "bank_size"  # the setting that members share out
REPEATS = 5  # measured passes, behind one that warms up
PASSES = 8  # of each good picture through each member until the run is done, checks and calibration included
FIXED_S = 20.0  # a member takes as long for what does not grow with the pictures
SEEN = 4.0  # pixels of a detector: of a smaller defect little is left to see, docs/tiles.md
SMALL = 16.0  # pixels of a picture: where defects of this width are lost, it is said before the training

Measure = Callable[[str, Any], float]  # name and settings of a detector to milliseconds


@dataclass(frozen=True)
class Asked:
    """The sizes that are asked for, and what one picture and the whole run may take."""

    size: Sizes = "auto"
    latency_ms: float | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Sized:
    """How a detector is trained: *members* one by one; where they are several, their ensemble is the candidate."""

    detector: str
    members: tuple[str, ...]
    why: str
    overrides: dict[str, dict[str, Any]] = field(default_factory=dict)  # as in train.detectors
    ms: float = 0.0  # of one picture through all members, where a budget is given
    smallest: float = 0.0  # width in pixels of the picture from which a defect is seen; 0: not known

    @property
    def name(self) -> str:
        """Of the candidate: what it is called below the folder of its view."""
        return SIZES.join(self.members)

    @property
    def names(self) -> tuple[str, ...]:
        """All that is made, in order."""
        return tuple(dict.fromkeys((*self.members, self.name)))

    @property
    def told(self) -> dict[str, Any]:
        """What run.json says of it."""
        return {"detectors": list(self.members), "why": self.why, "smallest_defect": round(self.smallest, 1)}


class Cost(NamedTuple):
    """One picture through all members, and all of the run."""

    ms: float
    minutes: float


def forward_ms(name: str, settings: Any) -> float:
    """Milliseconds that one picture takes in the untrained detector, made as large as it may become.

    The median of a few passes in torch on this machine's processor; only relations to other machines are estimates.
    """
    import torch

    from components.detectors.catalogue import create

    detector = create(name, settings, pretrained=False).eval()
    with torch.inference_mode():
        detector.grow()
        picture = torch.rand(1, 3, detector.size, detector.size)
        return 1000 * statistics.median(_timed(lambda: detector(picture)) for _ in range(1 + REPEATS))


def _timed(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def plan(stages: Stages, detector: str, asked: Asked, measure: Measure = forward_ms, literal: bool = False) -> Sized:
    """How *detector* is trained on a view that is split; *literal*: as its name and its settings say.

    The same pictures give the same sizes unless a budget is given: only then is anything measured. Raises SettingsError
    where it cannot keep what is asked for.
    """
    require_clips(stages, detector)
    table, explicit = _good(stages), sizes_of(asked.size, "size")
    sizes: tuple[int, ...]
    if literal or parted(detector)[1] or (not explicit and _set(stages, detector)):
        sizes, why, fixed = (_size(stages.params.train.method(detector)),), "as its name and settings say", True
    elif explicit:
        sizes, why, fixed = explicit, "as asked for", True
    else:
        (sizes, why), fixed = _by_pictures(stages, detector, table), False
    kept, said, ms = _within(stages, detector, sizes, fixed, asked, len(table), measure)
    smallest = SEEN * _squares(stages, table)[1] / max(kept)
    found = replace(_as_named(stages, detector, kept, f"{why}{said}"), ms=ms, smallest=smallest)
    log.info("%s: %s", stages.folder, _sentence(found))
    if lost := _lost(table, found, max(kept)):
        log.warning("%s: %s", stages.folder, lost)
    return found


def _lost(table: pd.DataFrame, found: Sized, size: int) -> str:
    """What is too small to be seen, and the fewest squares that see defects of half that limit; "" if little is."""
    if found.smallest <= SMALL:
        return ""
    height, width = (int(table[side].median()) for side in ("height", "width"))
    for across in range(2, MOST + 1):
        cut = grid(height, width, across)
        side = min(stop - start for (start, stop), *_ in cut)
        if SEEN * side / size <= SMALL / 2:
            break
    return (
        f"pictures of {width} x {height} pixels are shrunk so far that a defect below {found.smallest:.0f} of their "
        f"pixels may not be seen; --tiles {across} (data.tiles) sees defects from {SEEN * side / size:.0f} pixels, in "
        f"{len(cut.boxes)} squares that each cost what a picture costs"
    )


def require_clips(stages: Stages, detector: str) -> None:
    """Raises SettingsError for a detector of clips where the adapter gives single pictures; nothing is read for it."""
    if detector_class(detector).clips and (used := _single(stages)):
        raise SettingsError(
            f"{detector} looks at clips, and adapter {used} gives single pictures; give frames of clips with "
            f"adapter {', '.join(name for name in ADAPTERS if adapter(name).clips)}, or another detector"
        )


def _single(stages: Stages) -> str | None:
    """An adapter of *stages* that gives single pictures, if there is one."""
    used = (stages.params.data[source.data.name].adapter for source in stages.sources)
    return next((name for name in used if not adapter(name).clips), None)


def suited(stages: Stages, names: Sequence[str]) -> list[str]:
    """*names*, with ``all`` for what can learn these pictures: none of clips where they stand by themselves."""
    found = every(names)
    left = {n for n in found if n not in names and detector_class(n).clips and _single(stages)}
    for name in sorted(left):
        log.info("%s: without %s, which looks at clips", stages.folder, name)
    return [name for name in found if name not in left]


def plans(
    stages: Stages, names: Sequence[str], asked: Asked, members: Iterable[str] = (), measure: Measure = forward_ms
) -> list[Sized]:
    """``plan`` of each of the detectors that a file lists.

    A detector of which the list names sizes too, or that is one of the *members* of ensembles, is taken as written.
    """
    listed = {parted(name)[0] for name in names if parted(name)[1]} | set(members)
    for name in set(names) - listed:
        if parted(name)[1] is None:
            for given in stages.params.train.overrides(name):
                agree(name, given, asked.size)
    return [plan(stages, name, asked, measure, literal=name in listed) for name in names]


def agree(detector: str, overrides: Mapping[str, Any], size: Sizes) -> None:
    """Raises SettingsError where a name, overrides of the detector and *size* ask for different sizes."""
    asked = {f"the name {detector}": parted(detector)[1], "its settings": size_in(overrides)}
    said: dict[str, tuple[int, ...]] = {where: (value,) for where, value in asked.items() if value}
    if sizes := sizes_of(size, "size"):
        said["size"] = sizes
    if len(set(said.values())) > 1:
        told = ", ".join(f"{where} {'/'.join(map(str, value))}" for where, value in said.items())
        raise SettingsError(f"{parted(detector)[0]}: is asked for at different sizes: {told}; leave all but one out")


def with_overrides(stages: Stages, found: Sequence[Sized]) -> Stages:
    """*stages* whose trainings know what the members' settings are."""
    train = stages.params.train
    known = train.detectors | {name: given for sized in found for name, given in sized.overrides.items()}
    return replace(stages, params=replace(stages.params, train=replace(train, detectors=known)))


def members_file(stages: Stages, found: Sequence[Sized], file: Path, out: Path) -> Path:
    """What a training in its own process reads: *file*, or *out* where members have settings of their own."""
    if not any(sized.overrides for sized in found):
        return file
    values: dict[str, Any] = plain(with_overrides(stages, found).params)
    del values["benchmark"]  # a file that has none need not have the views of its defaults
    values["pipeline"]["views"] = [stages.view]
    out.write_text(yaml.safe_dump(values))
    return out


def reference_of(found: Sequence[Sized]) -> str:
    """The candidate that another one must be better than for certain: the reference detector, as it is trained."""
    of_it = [sized for sized in found if parted(sized.detector)[0] == REFERENCE]
    plain_first = sorted(of_it, key=lambda sized: sized.detector != REFERENCE)
    return plain_first[0].name if plain_first else REFERENCE


def sizes_by_pictures(size: int, shorter: float) -> tuple[int, ...]:
    """*size* and larger ones, none of them larger than the shorter side of pictures: nothing is enlarged for them."""
    return (size, *(larger for factor in FACTORS[1:] if (larger := int(size * factor)) <= shorter))


def _good(stages: Stages) -> pd.DataFrame:
    """The good pictures that are learned from and calibrated with."""
    table = read_split(stages.folder / "split")
    return table[(table["label"] == "normal") & table["split"].isin(["fit", "calibrate"])]


def _by_pictures(stages: Stages, detector: str, table: pd.DataFrame) -> tuple[tuple[int, ...], str]:
    size = _size(stages.params.train.method(detector))
    if stages.params.train.preset == TINY:
        return (size,), "the preset tiny has one"
    if not detector_class(detector).averages_sizes:
        # What is learned by gradients takes minutes to hours: each size more would cost as much again.
        return (size,), f"that of the preset: each size more would be another training of {detector}"
    _, side = _squares(stages, table)
    return sizes_by_pictures(size, side), f"what is seen at a time has {side:.0f} pixels on the shorter side"


def squares_of(stages: Stages) -> int:
    """In how many squares the typical picture is seen."""
    return _squares(stages, _good(stages))[0]


def _squares(stages: Stages, table: pd.DataFrame) -> tuple[int, int]:
    """How many squares the typical picture is seen in, and the shorter side of one of them in its pixels."""
    height, width = (int(table[side].median()) for side in ("height", "width"))
    found = grid(height, width, read_decoding(stages.folder / "split").tiles)
    return len(found.boxes), min(stop - start for (start, stop), *_ in found)


def _within(
    stages: Stages, detector: str, sizes: tuple[int, ...], fixed: bool, asked: Asked, pictures: int, measure: Measure
) -> tuple[tuple[int, ...], str, float]:
    """The most of *sizes*, smallest first, that the budget has room for, and what they cost; *fixed*: all or none."""
    # Of what is learned by gradients the epochs are cut to what fits, by what its steps take (training/rehearsal).
    minutes = asked.minutes if detector_class(detector).averages_sizes else None
    if asked.latency_ms is None and minutes is None:
        return sizes, "", 0.0
    limit = Cost(asked.latency_ms or math.inf, minutes or math.inf)
    for count in [len(sizes)] if fixed else range(len(sizes), 0, -1):
        cost = _cost(stages, detector, sizes[:count], pictures, measure)
        if cost.ms <= limit.ms and cost.minutes <= limit.minutes:
            return sizes[:count], f"; {cost.ms:.0f} ms a picture, about {cost.minutes:.1f} minutes to fit", cost.ms
    over = [f"{cost.ms:.0f} ms a picture where {limit.ms:g} may be"] if cost.ms > limit.ms else []
    over += [f"about {cost.minutes:.1f} minutes where {limit.minutes:g} may be"] if cost.minutes > limit.minutes else []
    needs = f"{parted(detector)[0]} at {'/'.join(map(str, sizes[:count]))} pixels needs {' and '.join(over)}"
    raise SettingsError(f"{needs}; raise the limit, or give a smaller size")


def _cost(stages: Stages, detector: str, sizes: tuple[int, ...], pictures: int, measure: Measure) -> Cost:
    members = _as_named(stages, detector, sizes, "")
    train = with_overrides(stages, [members]).params.train
    squares, _ = _squares(stages, _good(stages))
    ms = squares * sum(measure(name, train.method(name)) for name in members.members)
    trainings = 1 + stages.folds
    return Cost(ms, trainings * (PASSES * pictures * ms / 1000 + FIXED_S * len(sizes)) / 60)


def _as_named(stages: Stages, detector: str, sizes: tuple[int, ...], why: str) -> Sized:
    """The members by their names; a memory bank is shared out, so that a picture is not compared with more rows."""
    base, train = parted(detector)[0], stages.params.train
    if len(sizes) == 1:
        own = sizes[0] == _size(train.method(detector))
        return Sized(detector, (detector if own else named(base, sizes[0]),), why)
    names = tuple(named(base, size) for size in sorted(sizes))
    bank = getattr(train.method(base), BANK, None)
    shared = {} if bank is None else {BANK: max(1, bank // len(names))}
    return Sized(detector, names, why, {name: {**shared, **train.detectors.get(name, {})} for name in names})


def _sentence(found: Sized) -> str:
    rows = next((given[BANK] for given in found.overrides.values() if BANK in given), None)
    shared = f", each with a bank of {rows} rows" if rows else ""
    return f"{found.detector}: {' + '.join(found.members)}{shared} ({found.why})"


def _size(settings: Any) -> int:
    return int(settings.size if hasattr(settings, "size") else settings.backbone.size)


def _set(stages: Stages, detector: str) -> bool:
    """Whether settings of the detector name its size."""
    return any(size_in(given) for given in stages.params.train.overrides(detector))
