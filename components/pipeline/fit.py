"""``loupe fit`` and ``loupe evaluate``: the stages on one folder, without DVC, Prefect or a registry."""

import logging
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from components.calibration.settings import CalibrationSettings
from components.core.artefacts import (
    atomic_dir,
    code_hash,
    lock_of,
    locked,
    read_json,
    reading,
    tree_hash,
    values_hash,
    write_json,
)
from components.core.checks import check_budget, check_seed
from components.core.errors import DataError, SettingsError
from components.core.places import check_folder
from components.core.runtime import return_freed_memory
from components.core.settings import convert, plain
from components.datasets.adapters import adapter
from components.datasets.loading import hand_on, rows
from components.datasets.rows import DEFAULT, Naming
from components.datasets.settings import DataSettings, SplitSettings, ValidationSettings
from components.detectors.catalogue import AUTO, Sizes, named, parted, require, sizes_of
from components.evaluation.settings import EvaluationSettings
from components.export.settings import ExportSettings
from components.pictures.kept import keeping
from components.pictures.masks import Masks, MaskTurn
from components.pictures.roi import region_text
from components.pipeline.crossing import standing
from components.pipeline.finished import finished, listing, remember
from components.pipeline.foresight import need, require_room
from components.pipeline.foresight import told as foreseen
from components.pipeline.params import Params, View
from components.pipeline.sections import built
from components.pipeline.sizing import Asked, Sized, agree, plan, require_clips, with_overrides
from components.pipeline.stages import Stages
from components.synthesis.settings import SynthesisSettings
from components.training.settings import TrainSettings

log = logging.getLogger("loupe")


@dataclass(frozen=True)
class FitRequest:
    """What the user asked ``loupe fit`` for; *sections* are those of params.yaml, what is None is left to them."""

    detector: str
    data: Path
    adapter: str = "folder"
    groups: tuple[str, ...] | None = None
    preset: str | None = None
    seed: int = 0
    alpha: float | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    checkpoint_every: float | None = None
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    methods: dict[str, dict[str, Any]] = field(default_factory=dict)  # of the params file: train.detectors
    size: Sizes = AUTO
    latency_ms: float | None = None
    minutes: float | None = None


def fit_folder(request: FitRequest, out: Path) -> Path:
    """Validate, split, synthesise, train, calibrate and export; *out* then holds model, calibration.json, bundle."""
    request = _sound(request)
    stages = stages_of(request, out / "work")
    if finished(out, asked(request), request.data):
        return out
    _require_method(request, stages, out)
    with locked(lock_of(out), wait=False, what=str(out)), keeping():
        return _fitted(request, stages, out)


def dry_run(request: FitRequest, out: Path) -> list[str]:
    """What ``fit_folder`` would do, line by line; the pictures are read and split, nothing is trained or written."""
    request = _sound(request)
    with tempfile.TemporaryDirectory() as folder, keeping():
        stages = stages_of(request, Path(folder))
        _require_method(request, stages, out)
        stages, sized = _planned(request, stages, out)
        return foreseen(stages, sized, [need(stages, name, len(sized.members)) for name in sized.members], str(out))


def _sound(request: FitRequest) -> FitRequest:
    """*request* without a slip in what is read without torch. Raises DataError, SettingsError."""
    if not request.data.is_dir():
        raise DataError(f"{request.data}: is not a folder; give the data set's folder with --data")
    request = drawn(request)
    # A slip is told before anything is written; in the name and in the sections of params.yaml before torch is loaded.
    require(request.detector)
    adapter(request.adapter)
    agree(request.detector, request.overrides, request.size)
    check_budget("--latency-ms", request.latency_ms)
    check_budget("--minutes", request.minutes)
    return request


def _require_method(request: FitRequest, stages: Stages, out: Path) -> None:
    """Raises SettingsError, PlaceError for what only the method or the place tells."""
    from components.training.several import require_devices

    for name in _typed(request):
        stages.params.settings_of(name)
        require_devices(name, stages.params.train)
    require_clips(stages, request.detector)
    check_folder(out, request.data, begun, "a run of `loupe fit`")


def drawn(request: FitRequest) -> FitRequest:
    """*request* with the region of interest itself for the file that draws it: a changed file is another request."""
    data = request.sections.get("data", {})
    if not isinstance(data.get("roi"), str):
        return request
    return replace(request, sections={**request.sections, "data": {**data, "roi": region_text(data["roi"])}})


def begun(out: Path) -> bool:
    """A run of ours, finished or not: the same command goes on with it."""
    return any((out / name).exists() for name in ("run.json", "work"))


def _fitted(request: FitRequest, stages: Stages, out: Path) -> Path:
    """All stages in order, under the lock of *out*."""
    seen = listing(request.data)
    stages, sized = _planned(request, stages, out)
    require_room(stages, sized.members)
    _said(out, stages.synthesise)
    for name in sized.names:
        _made(stages, sized, name, out)
        if name == sized.name:
            _said(out, stages.trace, name)
        _said(out, stages.calibrate if name == sized.name else stages.calibrate_member, name)
    _said(out, stages.export, sized.name)
    done = present(request, stages, out, sized.name, {"sizes": sized.told})
    remember(request.data, seen, out / "work")
    return done


def _planned(request: FitRequest, stages: Stages, out: Path) -> tuple[Stages, Sized]:
    """The pictures split, and how the detector is trained on them."""
    for step in (stages.manifest, stages.validate, stages.split):
        _said(out, step)
    sized = plan(stages, request.detector, Asked(request.size, request.latency_ms, request.minutes))
    return with_overrides(stages, [sized]), sized


def _made(stages: Stages, sized: Sized, name: str, out: Path) -> None:
    """The model of *name*. One of several members that is trained already is left alone: a killed fit goes on."""
    if name not in sized.members:
        _said(out, stages.combine, name)
        return
    if len(sized.members) == 1:
        _said(out, stages.train, name)
        return
    with standing(stages, name, stages.of(name) / "model", stages.folder / "split") as stands:
        if not stands:
            _said(out, stages.train, name)


def _said(out: Path, step: Callable[..., Path], *detector: str) -> None:
    log.info("%s: %s", out, " ".join([step.__name__, *detector]))
    step(*detector)
    return_freed_memory()  # of large pictures it is much, and the next stage has blocks of other sizes


def _typed(request: FitRequest) -> list[str]:
    """The detector by the names of the sizes that are asked for."""
    sizes = sizes_of(request.size, "--size") if parted(request.detector)[1] is None else None
    return [named(request.detector, size) for size in sizes] if sizes else [request.detector]


def stages_of(request: FitRequest, work: Path) -> Stages:
    """The stages of a request, whose artefacts lie below *work*. Raises SettingsError."""
    name, sections = request.data.name, request.sections
    every, members = request.checkpoint_every, len(_typed(request))
    params = Params(
        data={name: built(DataSettings, sections, "data", adapter=request.adapter, name=name)},
        views={"run": View(name, request.groups)},
        seed=request.seed,
        artefacts=str(work),
        validation={name: built(ValidationSettings, sections, "validation")},
        split=built(SplitSettings, sections, "split"),
        synthesis=built(SynthesisSettings, sections, "synthesis"),
        train=replace(
            built(
                TrainSettings,
                sections,
                "train",
                preset=request.preset,
                checkpoint_every=every,
                minutes=request.minutes and request.minutes / members,
            ),
            detectors={**request.methods, request.detector: _merged(request)},
        ),
        calibration=built(CalibrationSettings, sections, "calibration", alpha=request.alpha),
        evaluation=built(EvaluationSettings, sections, "evaluation"),
        export=built(ExportSettings, sections, "export"),
    )
    return Stages(params, "run", request.data.parent)


def _merged(request: FitRequest) -> dict[str, Any]:
    """Settings of the detector in the params file, and those of --set behind them: a key again goes last as well."""
    before, on_top = request.methods.get(request.detector, {}), request.overrides
    return {key: value for key, value in before.items() if key not in on_top} | on_top


def asked(request: FitRequest) -> dict[str, Any]:
    """A request as run.json keeps it: without what has no part in the result."""
    return {k: v for k, v in plain(request).items() if k != "checkpoint_every"} | {"data": request.data.name}


def present(request: FitRequest, stages: Stages, out: Path, made_of: str, told: dict[str, Any]) -> Path:
    """Put what a user looks for at the top of *out*; the stages' own artefacts stay below ``work``.

    *made_of* is the detector or ensemble by its name below ``work``; *told* comes into run.json.
    """
    made = stages.of(made_of)
    for name in ("model", "bundle"):
        with atomic_dir(out / name) as scratch:
            shutil.copytree(made / name, scratch, dirs_exist_ok=True)
    shutil.copy2(made / "calibration" / "calibration.json", out / "calibration.json")
    shutil.copy2(stages.shipped / "split.parquet", out / "split.parquet")
    hand_on(stages.shipped, out)
    stages.report(made_of, out)
    wanted = asked(request)
    record = {
        "request": wanted,
        "configuration": values_hash(wanted),
        "program": code_hash(),
        "outputs": {name: tree_hash(out / name) for name in ("model", "bundle", "calibration.json", "split.parquet")},
        "stages": {name: read_json(made / name / "run.json") for name in ("model", "calibration", "bundle")},
        **told,
    }
    write_json(out / "run.json", record)
    return out


@dataclass(frozen=True)
class EvaluateRequest:
    """What the user asked ``loupe evaluate`` for: the run's own test split in *data*, or any folder *labelled*."""

    run: Path
    data: Path | None = None
    labelled: Path | None = None
    naming: Naming = DEFAULT
    masks: Masks = "auto"
    mask_turn: MaskTurn = "auto"
    seed: int = 0


def mask_options(masks: str, mask_turn: str) -> tuple[Masks, MaskTurn]:
    """What the options --masks and --mask-turn say. Raises SettingsError."""
    return convert(masks, Masks, "--masks"), convert(mask_turn, MaskTurn, "--mask-turn")


def evaluate_run(request: EvaluateRequest, out: Path) -> Path:
    """Evaluate what ``fit_folder`` wrote, on the test split it made or on other labelled pictures."""
    run, data = request.run, request.labelled or request.data
    if not (run / "run.json").exists():
        raise DataError(f"{run}: holds no run.json; give a folder that `loupe fit` wrote")
    test = rows(run, "test")
    if (data is None and len(test)) or (request.labelled and request.data):
        raise SettingsError("give the data set of the run with --data, or another labelled folder with --labelled")
    data = data or run  # nothing is read of it where there are no test images
    if not data.is_dir():
        raise DataError(f"{data}: is not a folder; give the folder of the pictures")
    check_seed(request.seed)
    pictures = request.labelled or request.data  # not the run itself, below which the evaluation lies
    check_folder(out, pictures, lambda folder: (folder / "metrics.json").exists(), "an evaluation")
    with reading(lock_of(run), str(run)):
        done = _evaluated(request, test, data, out)
    if out.parent.resolve() == run.resolve():
        rewrite_report(run)
    return done


def rewrite_report(run: Path) -> None:
    """The run's page with what was measured or moved since; a run of an older version has none."""
    from components.report.cells import KEPT
    from components.report.run import rewrite

    if (run / KEPT).is_dir():
        log.info("report in %s", rewrite(run))


def ending(run: Path, data: Path) -> list[str]:
    """What a person wants to know at the end: operating point, promise, report, next command."""
    from components.report import told

    labelled = rows(run, "test")["label"].isin(["normal", "anomalous"])
    return told.ending(run, data, int(labelled.sum()))


def _evaluated(request: EvaluateRequest, test: pd.DataFrame, data: Path, out: Path) -> Path:
    from components.evaluation.evaluate import evaluate_rows
    from components.evaluation.labelled import SPLIT, labelled_rows, require_same

    run = request.run
    sections = read_json(run / "run.json").get("request", {}).get("sections", {})
    settings = built(EvaluationSettings, sections, "evaluation")
    if request.labelled:
        table, said = labelled_rows(run, data, request.naming, request.masks, request.mask_turn)
        log.info("%s: split %s, metrics in %s", data, SPLIT, out)
    else:
        if request.naming != DEFAULT:
            raise SettingsError("--good, --defect and --groups go with --labelled; the labels of --data are the run's")
        require_same(run, data)
        table, said = test, {"split": "test"}
        if table.empty:
            log.warning("%s: has no test images; labelled ones can be given with --labelled DIR", run)
    given = table, said, run / "model", run, run, data, out, settings, request.seed
    return evaluate_rows(*given, traced=run / "bundle" if (run / "bundle").exists() else None)
