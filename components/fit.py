"""``loupe fit`` and ``loupe evaluate``: the stages on one folder, without DVC, Prefect or a registry."""

import logging
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.artefacts import atomic_dir, locked, read_json, reading, tree_hash, values_hash, write_json
from components.calibration import CalibrationSettings
from components.checks import check_seed
from components.datasets.loading import hand_on, rows
from components.datasets.manifest import DataSettings
from components.detectors import settings_for
from components.errors import DataError
from components.params import Params, TrainParams, View
from components.places import check_folder
from components.settings import plain
from components.stages import Stages

log = logging.getLogger("loupe")
LOCK = ".lock"  # in the run's folder: held by the process that writes it


@dataclass(frozen=True)
class FitRequest:
    """What the user asked ``loupe fit`` for."""

    detector: str
    data: Path
    adapter: str = "folder"
    groups: tuple[str, ...] | None = None
    preset: str = "cpu"
    seed: int = 0
    alpha: float = 0.05
    overrides: dict[str, Any] = field(default_factory=dict)
    checkpoint_every: float = 20.0


def fit_folder(request: FitRequest, out: Path) -> Path:
    """Validate, split, synthesise, train, calibrate and export; *out* then holds model, calibration.json, bundle."""
    if not request.data.is_dir():
        raise DataError(f"{request.data}: is not a folder; give the data set's folder with --data")
    settings_for(request.detector, request.preset, request.overrides)  # a slip here is told before anything is written
    stages = _stages(request, out / "work")
    check_folder(out, request.data, _begun, "a run of `loupe fit`")
    with locked(out / LOCK, wait=False, what=str(out)):
        return _fitted(request, stages, out)


def _begun(out: Path) -> bool:
    """A run of ours, finished or not: the same command goes on with it."""
    return any((out / name).exists() for name in ("run.json", "work"))


def _fitted(request: FitRequest, stages: Stages, out: Path) -> Path:
    steps = [stages.manifest, stages.validate, stages.split, stages.synthesise]
    for step in steps:
        log.info("%s: %s", out, step.__name__)
        step()
    for name in ("train", "calibrate", "export"):
        log.info("%s: %s", out, name)
        getattr(stages, name)(request.detector)
    return _present(request, stages, out)


def _stages(request: FitRequest, work: Path) -> Stages:
    name = request.data.name
    params = Params(
        data={name: DataSettings(adapter=request.adapter, name=name)},
        views={"run": View(name, request.groups)},
        seed=request.seed,
        artefacts=str(work),
        train=TrainParams(
            preset=request.preset,
            checkpoint_every=request.checkpoint_every,
            detectors={request.detector: request.overrides},
        ),
        calibration=CalibrationSettings(alpha=request.alpha),
    )
    return Stages(params, "run", request.data.parent)


def _present(request: FitRequest, stages: Stages, out: Path) -> Path:
    """Put what a user looks for at the top of *out*; the stages' own artefacts stay below ``work``."""
    made = stages.of(request.detector)
    for name in ("model", "bundle"):
        with atomic_dir(out / name) as scratch:
            shutil.copytree(made / name, scratch, dirs_exist_ok=True)
    shutil.copy2(made / "calibration" / "calibration.json", out / "calibration.json")
    shutil.copy2(stages.folder / "split" / "split.parquet", out / "split.parquet")
    hand_on(stages.folder / "split", out)
    asked = {k: v for k, v in plain(request).items() if k != "checkpoint_every"} | {"data": request.data.name}
    record = {
        "request": asked,
        "configuration": values_hash(asked),
        "outputs": {name: tree_hash(out / name) for name in ("model", "bundle", "calibration.json", "split.parquet")},
        "stages": {name: read_json(made / name / "run.json") for name in ("model", "calibration", "bundle")},
    }
    write_json(out / "run.json", record)
    return out


def evaluate_run(run: Path, data: Path, out: Path, seed: int) -> Path:
    """Evaluate what ``fit_folder`` wrote to *run* on the test split it made of *data*."""
    from components.evaluation import EvaluationSettings
    from components.evaluation.component import evaluate

    if not (run / "run.json").exists():
        raise DataError(f"{run}: holds no run.json; give a folder that `loupe fit` wrote")
    check_seed(seed)
    check_folder(out, data, lambda folder: (folder / "metrics.json").exists(), "an evaluation")
    with reading(run / LOCK, str(run)):
        if rows(run, "test").empty:
            raise DataError(
                f"{run}: no image of the test side to evaluate on; add test/good and test/<defect> to the data"
            )
        return evaluate(run / "model", run, run, data, out, EvaluationSettings(), seed)
