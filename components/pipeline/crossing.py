"""The stages of a view whose good pictures are too few to be held out: each one trains and calibrates."""

import logging
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from components.core.artefacts import code_hash, read_json, tree_hash, values_hash, write_json
from components.core.settings import plain
from components.datasets.folds import ALL, HELD, units_of, write_folds
from components.datasets.loading import rows
from components.detectors.presets import counts

if TYPE_CHECKING:
    from components.calibration.folds import Fold
    from components.decision.calibration import Alike
    from components.pipeline.stages import Stages
    from components.training.settings import TrainSettings

log = logging.getLogger("loupe")
CHECKS = "checks"  # below the folder of a fold: the model that all folds together prefer
FOLDS = "folds"  # below the folder of a view and of a detector


def count(stages: "Stages") -> int:
    """The folds of a view; 0: the calibrate side of its split is enough. Raises CalibrationError before any work."""
    from components.calibration.folds import fold_count

    split = stages.folder / "split"
    share = None if stages.members else stages.params.split.calibrate_share
    held, fitted = (len(rows(split, side, "normal")) for side in ("calibrate", "fit"))
    return fold_count(held, held + fitted, stages.params.calibration, split, share)


def alike(stages: "Stages", folds: int) -> "Alike | None":
    """In how many clips or groups that stay together the calibrate normals lie; None: each stands for itself."""
    from components.decision.calibration import Alike

    split, together = stages.folder / "split", "picture" if stages.members else stages.split_settings.together
    sides = [rows(split, side, "normal") for side in ("calibrate", *(("fit",) if folds else ()))]
    units = units_of(pd.concat(sides, ignore_index=True), split, together)
    return None if units is None else Alike(str(units.name), int(units.nunique()))


def tell_alike(stages: "Stages", folds: int) -> None:
    """What cannot be promised of pictures that are alike, before any training."""
    from components.decision.conformal import needed

    found, alpha = alike(stages, folds), stages.params.calibration.alpha
    if found and found.n < needed(alpha):
        every = "" if folds else ", and split.calibrate_share says which part of all of them does"
        log.warning(
            "%s: the good pictures that calibrate lie in %s, alike within each: a false-alarm rate of %g is that of "
            "pictures like theirs and no promise for %s that come; for that %d have to calibrate%s",
            stages.folder,
            found,
            alpha,
            found.of,
            needed(alpha),
            every,
        )


def shipped(stages: "Stages") -> Path:
    """The split of the model that ships: all good pictures on the fit side."""
    return stages.folder / FOLDS / ALL / "split"


def synthesise(stages: "Stages", folds: int) -> Path:
    """The folds, anomalies on the held-out pictures of each, and on all of them for what the shipped model is asked."""
    from components.training.difficulty import Checks

    log.info(
        "%s: too few good pictures to hold out enough for alpha %g: cross-conformal by %d folds, %d trainings instead "
        "of 1; that the false-alarm rate holds is then no theorem, but measured (docs/adr/0026)",
        stages.folder,
        stages.params.calibration.alpha,
        folds,
        folds + 1,
    )
    at = write_folds(stages.folder / "split", stages.folder / FOLDS, folds, stages.split_settings.together)
    checks = Checks(stages.data, stages.params.synthesis, stages.params.train, stages.params.seed)
    levels = checks.levels(at / "0" / "split")  # of one fold for all of them: they are alike
    for number in range(folds):
        checks.make(at / str(number) / "split", at / str(number) / "synthetic", levels)
    return checks.make(at / HELD / "split", stages.folder / "synthetic", levels)


def checks(stages: "Stages", folds: int) -> list[Path]:
    """The anomalies that the models of the folds were checked with."""
    return [stages.folder / FOLDS / str(number) / "synthetic" for number in range(folds)]


def train(stages: "Stages", detector: str, folds: int) -> Path:
    """The model of each fold, those that are there already left alone, then the one that ships."""
    from components.training.train import train as fit

    asked, seed, started = stages.training, stages.params.seed, time.monotonic()
    asked = replace(asked, minutes=asked.minutes and asked.minutes / (folds + 1))
    for number, (model, split) in enumerate(_folds(stages, detector, folds)):
        with standing(stages, detector, model, split) as stands:
            if not stands:
                given = split, split.parent / "synthetic", stages.data, model
                fit(detector, *given, asked, seed, checks=model.parent / CHECKS)
        asked = _as_long(asked, detector, model)
        each = (time.monotonic() - started) / (number + 1)
        log.info("%s: fold %d of %d, about %.0f s to go", model.parent, number + 1, folds, each * (folds - number))
    models = [fold.model for fold in _folds(stages, detector, folds)]
    _leave_best(models)
    synthetic, out = stages.folder / "synthetic", stages.of(detector) / "model"
    return fit(detector, shipped(stages), synthetic, stages.data, out, asked, seed, models)


def _as_long(asked: "TrainSettings", detector: str, model: Path) -> "TrainSettings":
    """*asked*, with the epochs that *model* was given in a limit of minutes: folds are compared check by check."""
    if asked.minutes is None:
        return asked
    made = read_json(model / "settings.json")["settings"]
    epochs = {name: made[name] for name in counts(asked.method(detector))}
    given = {**asked.detectors.get(detector, {}), **epochs}
    return replace(asked, minutes=None, detectors={**asked.detectors, detector: given})


def _leave_best(models: list[Path]) -> None:
    """Of the checks that the trainings kept, the one that all folds together prefer."""
    best = _common(models)
    for at in (model.parent / CHECKS for model in models):
        for check in at.iterdir() if at.exists() else ():
            if check.name != str(best):
                shutil.rmtree(check)


def _common(models: list[Path]) -> int | None:
    from components.training.select import common_check

    return common_check([read_json(model / "history.json") for model in models])


@contextmanager
def standing(stages: "Stages", detector: str, model: Path, split: Path) -> Iterator[bool]:
    """Whether *model* is there already, whole and of this very request and program; behind the block it is.

    A fit of several trainings that was killed goes on with the one that it was in.
    """
    train, done = stages.params.train, model.parent / "done.json"
    asked = [detector, train.preset, plain(train.overrides(detector)), train.precision, stages.params.seed]
    asked += [plain(train.moves), train.minutes, code_hash()]
    asked += [tree_hash(split.parent / "split"), tree_hash(split.parent / "synthetic")]
    mark = values_hash(asked)
    stands = done.exists() and model.exists() and read_json(done) == {"asked": mark, "model": tree_hash(model)}
    yield stands
    if not stands:
        write_json(done, {"asked": mark, "model": tree_hash(model)})


def combine(stages: "Stages", ensemble: str, names: Sequence[str], folds: int) -> Path:
    """The ensembles of the models of each fold, on the scales of the one that ships, then that one: nothing learns."""
    from components.training.combine import Made, scales_in
    from components.training.combine import combine as put

    whole = [Made(stages.of(name) / "model", stages.of(name) / "calibration") for name in names]
    scales, given = [scales_in(member) for member in whole], (stages.params.train, stages.params.seed)
    made, apart = _folds(stages, ensemble, folds), [_judging(stages, name, folds) for name in names]
    for number, (model, split) in enumerate(made):
        members = [replace(one, model=own[number].model) for one, own in zip(whole, apart, strict=True)]
        put(members, split, split.parent / "synthetic", stages.data, model, *given, scales)
    synthetic, out = stages.folder / "synthetic", stages.of(ensemble) / "model"
    return put(whole, shipped(stages), synthetic, stages.data, out, *given, scales, [fold.model for fold in made])


def calibrate(stages: "Stages", detector: str, folds: int, ships: bool = True) -> Path:
    """The table of out-of-fold scores. Of a member that does not ship by itself nobody is warned."""
    from components.calibration.folds import calibrate_folds

    at, known = stages.of(detector), stages.params.calibration
    given = stages.data, at / "calibration", known, alike(stages, folds), stages.graphs
    return calibrate_folds(at / "model", _judging(stages, detector, folds), *given, warns=ships)


def _judging(stages: "Stages", detector: str, folds: int) -> "list[Fold]":
    """The models of the folds that score the pictures they have not seen: of the check that all of them prefer."""
    parts = _folds(stages, detector, folds)
    if (best := _common([fold.model for fold in parts])) is None:
        return parts
    return [fold._replace(model=fold.model.parent / CHECKS / str(best)) for fold in parts]


def _folds(stages: "Stages", detector: str, folds: int) -> "list[Fold]":
    from components.calibration.folds import Fold

    at, splits = stages.of(detector) / FOLDS, stages.folder / FOLDS
    return [Fold(at / str(number) / "model", splits / str(number) / "split") for number in range(folds)]
