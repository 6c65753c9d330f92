"""``loupe ensemble``: finished runs of one data set as one model, calibrated, exported and kept like any run."""

import logging
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from components.core.artefacts import atomic_dir, file_hash, lock_of, locked, read_json, reading, tree_hash
from components.core.errors import DataError, SettingsError
from components.core.places import check_folder
from components.datasets.loading import read_decoding
from components.detectors.catalogue import COMPOSED
from components.pictures.kept import keeping
from components.pipeline.fit import FitRequest, begun, present, stages_of
from components.pipeline.stages import Stages
from components.registry.choice import REFERENCE

log = logging.getLogger("loupe")
(ENSEMBLE,) = COMPOSED
FOLDED = "is calibrated by folds, as too few good pictures are held out; what is put together needs calibration.folds 0"


@dataclass(frozen=True)
class EnsembleRequest:
    """What the user asked ``loupe ensemble`` for; what is None is as in the first of the *runs*."""

    runs: tuple[Path, ...]
    data: Path
    alpha: float | None = None


def ensemble_runs(request: EnsembleRequest, out: Path) -> Path:
    """Put runs together, calibrate and export; *out* then holds what ``loupe fit`` leaves.

    Raises DataError where *runs* are none, or not all of the data set and split of the first.
    """
    from components.evaluation.labelled import require_same

    records = _records(request.runs)
    if not request.data.is_dir():
        raise DataError(f"{request.data}: is not a folder; give the folder of the runs' data set with --data")
    first = _request(records[0], request)
    stages = stages_of(first, out / "work")
    check_folder(out, request.data, begun, "a run of `loupe ensemble`")
    for run in request.runs:
        require_apart(run, out)
    require_same(request.runs[0], request.data)
    with ExitStack() as stack:
        stack.enter_context(locked(lock_of(out), wait=False, what=str(out)))
        for run in request.runs:
            stack.enter_context(reading(lock_of(run), str(run)))
        stack.enter_context(keeping())
        _combined(request.runs, stages)
        for name in ("trace", "calibrate", "export"):
            log.info("%s: %s", out, name)
            getattr(stages, name)(ENSEMBLE)
        members = [_member(run, record) for run, record in zip(request.runs, records, strict=True)]
        return present(replace(first, detector=ENSEMBLE), stages, out, ENSEMBLE, {"members": members})


def require_apart(run: Path, out: Path) -> None:
    """Raises SettingsError where the ensemble would take the place of one of its own members."""
    if out.resolve() == run.resolve():
        raise SettingsError(f"{out}: is one of the runs to put together; give another folder with --out")


def _records(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """run.json of each. Raises DataError, SettingsError."""
    if len({run.resolve() for run in runs}) < max(2, len(runs)):
        raise SettingsError("an ensemble is made of two or more different runs; name each of them once")
    for run in runs:
        if not all((run / name).exists() for name in ("run.json", "model/model.safetensors", "split.parquet")):
            raise DataError(f"{run}: holds no finished run; give folders that `loupe fit` wrote")
        if file_hash(run / "split.parquet") != file_hash(runs[0] / "split.parquet"):
            raise DataError(
                f"{run}: learned other pictures than {runs[0]} (another data set or split); fit both with the same "
                "--data, --seed, --group and settings of data, validation and split"
            )
        if read_decoding(run).identity != read_decoding(runs[0]).identity:
            raise DataError(
                f"{run}: reads pictures otherwise than {runs[0]}; fit both with one --roi and one data.white"
            )
    records = [read_json(run / "run.json") for run in runs]
    for run in runs:
        if (_work(run) / "folds").exists():
            raise SettingsError(f"{run}: {FOLDED}")
    for part in ("split", "synthetic"):
        if not (_work(runs[0]) / part).is_dir():
            raise DataError(f"{_work(runs[0]) / part}: is gone; fit {runs[0]} again with the same command")
    return records


def _work(run: Path) -> Path:
    """Where a run keeps the artefacts of its stages."""
    return run / "work" / "run"


def _request(record: dict[str, Any], asked: EnsembleRequest) -> FitRequest:
    """The request of a run, for its data set where it lies today."""
    known = {field.name for field in fields(FitRequest)}
    values = {key: value for key, value in record["request"].items() if key in known}
    groups = values.get("groups")
    if values["detector"] == ENSEMBLE:  # nothing is trained: the stages want settings of some detector
        values |= {"detector": REFERENCE, "overrides": {}}
    found = FitRequest(**values | {"data": asked.data, "groups": tuple(groups) if groups else None})
    return found if asked.alpha is None else replace(found, alpha=asked.alpha)


def _combined(runs: Sequence[Path], stages: Stages) -> None:
    """The members' split and synthetic anomalies become those of the ensemble; then its model is put together."""
    from components.training.combine import Made, combine

    for part in ("split", "synthetic"):
        with atomic_dir(stages.folder / part) as scratch:
            shutil.copytree(_work(runs[0]) / part, scratch, dirs_exist_ok=True)
    members = [Made(run / "model", run) for run in runs]
    split, synthetic = stages.folder / "split", stages.folder / "synthetic"
    out, params = stages.of(ENSEMBLE) / "model", stages.params
    combine(members, split, synthetic, stages.data, out, params.train, params.seed)


def _member(run: Path, record: dict[str, Any]) -> dict[str, str]:
    """What run.json of the ensemble says of one of its members."""
    return {
        "run": run.resolve().name,
        "detector": record["request"]["detector"],
        "model": tree_hash(run / "model" / "model.safetensors"),
    }
