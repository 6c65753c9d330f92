"""params.yaml: every knob, loaded once into frozen typed records."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from components.calibration.settings import CalibrationSettings
from components.core.artefacts import parsed_yaml
from components.core.checks import check_budget, check_known, check_name, check_seed
from components.core.errors import SettingsError
from components.core.settings import build
from components.datasets.settings import DataSettings, SplitSettings, ValidationSettings
from components.detectors.catalogue import ALL, AT, AUTO, Sizes, check_detector, every, parted, sizes_of
from components.evaluation.settings import EvaluationSettings
from components.export.settings import ExportSettings
from components.monitoring.settings import MonitorSettings
from components.registry.settings import RegistrySettings
from components.retraining.settings import RetrainSettings
from components.scorelog.settings import ScoreLogSettings
from components.service.settings import InboxSettings, ServiceSettings, WatchSettings
from components.synthesis.settings import SynthesisSettings
from components.training.settings import TrainSettings

DEFAULT = Path("params.yaml")
STORE_VARIABLE = "LOUPE_STORE"
RETRAIN, REGISTERED = "retrain", "registered"
FOLDERS = ("leaderboard", RETRAIN, REGISTERED)  # below artefacts, beside those of the views


@dataclass(frozen=True)
class View:
    """What a detector is trained on: a data set, some of its groups, or other views joined.

    *together*, *normal* and *anomalous* are what ``split`` has of these names, for this view.
    """

    data: str = ""
    groups: tuple[str, ...] | None = None
    views: tuple[str, ...] = ()
    together: Literal["picture", "group"] | None = None
    normal: tuple[str, ...] | None = None
    anomalous: tuple[str, ...] | None = None

    @property
    def classes(self) -> bool:
        """Whether it is of a set of classes, some of which are normal."""
        return self.normal is not None or self.anomalous is not None


@dataclass(frozen=True)
class Selection:
    """A matrix of views and detectors."""

    views: tuple[str, ...] = ("elpv-mono",)
    detectors: tuple[str, ...] = ("fastflow", "patchcore")


@dataclass(frozen=True)
class Pool:
    """A work pool of Prefect's server that trainings are sent to (docs/several-machines.md).

    At most *runs* of it go on at a time. Pools that name the same *device* share its *at_once* trainings. *detectors*
    are those that go there, all where none are named.
    """

    runs: int | None = None
    device: str | None = None
    at_once: int = 1
    detectors: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for key, value in (("runs", self.runs), ("at_once", self.at_once)):
            if value is not None and value < 1:
                raise SettingsError(f"pipeline.pools: {key} is {value}; give 1 or more")
        for name in self.detectors or ():
            check_detector(name, "pipeline.pools.detectors")
        if self.device is not None:
            check_name(self.device, "pipeline.pools.device")

    def takes(self, detector: str) -> bool:
        """Whether *detector*, at whatever size, is trained here."""
        return self.detectors is None or bool({detector, parted(detector)[0]} & set(self.detectors))


@dataclass(frozen=True)
class Pipeline(Selection):
    """What the training flow runs; each of *ensembles* is a candidate made of several of the detectors.

    ``all`` among the detectors is the whole catalogue; *ensembles* auto is the one that the evidence asks for
    (docs/ensembles.md). *size* is the input size of those detectors, or sizes whose ensemble is the candidate; the
    budgets are for one picture, for the fit of one detector and for all of them (docs/sizes.md).

    With *pools* each training is a run of a work pool, else all of them are one process after another here. A run of
    which nothing is heard for *lapse_seconds* is taken up by another worker (docs/several-machines.md). *ahead*: one
    is trained while the model before is exported and evaluated, which takes the memory of both at once.
    """

    detectors: tuple[str, ...] = ("padim", "patchcore")  # docs/adr/0063
    ensembles: str | tuple[tuple[str, ...], ...] = AUTO
    size: Sizes = AUTO
    latency_ms: float | None = None
    minutes: float | None = None
    total_minutes: float | None = None
    ahead: bool = True
    pools: dict[str, Pool] = field(default_factory=dict)
    lapse_seconds: float = 60.0

    def expanded(self, detectors: Sequence[str] | None = None) -> tuple[str, ...]:
        """The names of *detectors*, by default those of the file."""
        return every(detectors or self.detectors)

    @property
    def grows(self) -> bool:
        """Whether the evidence says which ensemble there is."""
        return self.ensembles == AUTO

    @property
    def listed(self) -> tuple[tuple[str, ...], ...]:
        """The ensembles that are named."""
        return () if isinstance(self.ensembles, str) else self.ensembles


@dataclass(frozen=True)
class Run:
    """One cell of the benchmark's matrix; *method* is the detector without a size: the name of its file."""

    view: str
    detector: str
    method: str


@dataclass(frozen=True)
class Benchmark(Selection):
    """The matrix of dvc.yaml, with the data set of each view and one view of each data set.

    *runs* is the matrix cell by cell, as DVC needs it: it computes nothing, and the name of a stage has no @.
    """

    sources: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)


@dataclass(frozen=True)
class Params:
    """All of params.yaml."""

    data: dict[str, DataSettings]
    views: dict[str, View]
    seed: int = 0
    artefacts: str = "artefacts"
    store: str = "store"
    pipeline: Pipeline = Pipeline()
    benchmark: Benchmark = Benchmark()
    validation: dict[str, ValidationSettings] = field(default_factory=dict)
    split: SplitSettings = SplitSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    train: TrainSettings = TrainSettings()
    calibration: CalibrationSettings = CalibrationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    export: ExportSettings = ExportSettings()
    registry: RegistrySettings = RegistrySettings()
    service: ServiceSettings = ServiceSettings()
    inbox: InboxSettings = InboxSettings()
    watch: WatchSettings = WatchSettings()
    scorelog: ScoreLogSettings = ScoreLogSettings()
    monitor: MonitorSettings = MonitorSettings()
    retrain: RetrainSettings = RetrainSettings()

    def __post_init__(self) -> None:
        check_seed(self.seed)
        for name in self.views:
            check_name(name, "views", FOLDERS)
        chosen = {
            "pipeline": tuple(name for name in self.pipeline.detectors if name != ALL),
            "benchmark": self.benchmark.detectors,
            "retrain": self.retrain.detectors,
        }
        for part, names in chosen.items():
            for name in names:
                check_detector(name, f"{part}.detectors")
        sizes_of(self.pipeline.size, "pipeline.size")
        sizes_of(self.retrain.size, "retrain.size")
        check_budget("pipeline.latency_ms", self.pipeline.latency_ms)
        check_budget("pipeline.minutes", self.pipeline.minutes)
        check_budget("pipeline.total_minutes", self.pipeline.total_minutes)
        _check_ensembles(self.pipeline)
        _check_pools(self.pipeline)

    def settings_of(self, detector: str) -> Any:
        """The settings that *detector* would be trained with. Raises SettingsError, also for an alpha without exits."""
        from components.calibration.exits import require_normal_above
        from components.detectors.catalogue import detector_class, require_size
        from components.detectors.contract import Early

        if issubclass(detector_class(detector), Early):
            require_normal_above(self.calibration.alpha, self.export.cascade)
        settings = self.train.method(detector)
        require_size(detector, settings)
        return settings

    def view(self, name: str) -> View:
        """Raises SettingsError when there is no such view, or none that can be built."""
        if name not in self.views:
            raise SettingsError(f"params.yaml: views.{name} does not exist; known are {', '.join(self.views)}")
        view, where = self.views[name], f"params.yaml: views.{name}"
        if bool(view.data) == bool(view.views) or (view.views and (view.groups or view.classes)):
            raise SettingsError(f"{where}: give data (with or without groups or classes), or views to join")
        for part in view.views:
            if part not in self.views or self.views[part].views:
                raise SettingsError(f"{where}.views: {part} is no view of a data set; name those that it joins")
        return view


def _check_ensembles(asked: Pipeline) -> None:
    if isinstance(asked.ensembles, str) and asked.ensembles != AUTO:
        raise SettingsError(f"pipeline.ensembles is {asked.ensembles!r}; give auto, or lists of detectors")
    for members in asked.listed:
        for name in members:
            check_known(name, asked.expanded(), "pipeline.ensembles")
        if len(set(members)) < max(2, len(members)):
            raise SettingsError(f"pipeline.ensembles: {list(members)}; name two or more different detectors in each")


def _check_pools(asked: Pipeline) -> None:
    if asked.pools and asked.total_minutes:
        raise SettingsError(
            "pipeline.total_minutes: is for trainings one after another, and pools have several at once; leave one out"
        )
    slots = {pool.device: pool.at_once for pool in asked.pools.values()}
    for name, pool in asked.pools.items():
        if pool.device and pool.at_once != slots[pool.device]:
            raise SettingsError(
                f"pipeline.pools.{name}.at_once: is {pool.at_once}, and another pool of device {pool.device} says "
                f"{slots[pool.device]}; write the same"
            )
    if asked.lapse_seconds < 2:
        raise SettingsError(f"pipeline.lapse_seconds is {asked.lapse_seconds:g}; give 2 or more")


def _check_given(params: Params, values: Mapping[str, Any]) -> None:
    """What the parts that a file gives say of its own views and data sets; defaults are not meant for every file."""
    for name in params.views:
        for data in filter(None, [params.view(name).data]):
            check_known(data, params.data, f"views.{name}.data")
    if "pipeline" in values:
        for name in params.pipeline.views:
            check_known(name, params.views, "pipeline.views")
    if "benchmark" in values:
        _check_benchmark(params)


def matrix(given: Benchmark) -> dict[str, Run]:
    """``benchmark.runs`` of the views and detectors: by names that DVC takes for those of stages."""
    cells = ((view, name) for view in given.views for name in given.detectors)
    return {f"{view}-{name.replace(AT, '-')}": Run(view, name, parted(name)[0]) for view, name in cells}


def _check_benchmark(params: Params) -> None:
    given = params.benchmark
    if given.runs and given.runs != (wanted := matrix(given)):
        wrong = next(key for key in (*wanted, *given.runs) if given.runs.get(key) != wanted.get(key))
        advice = "remove it"
        if cell := wanted.get(wrong):
            advice = f"write {{view: {cell.view}, detector: {cell.detector}, method: {cell.method}}}"
        raise SettingsError(
            f"benchmark.runs.{wrong}: is not what benchmark.views and benchmark.detectors say; {advice}"
        )
    for name in (run.detector for run in given.runs.values()):
        if name not in params.train.detectors:
            raise SettingsError(f"train.detectors.{name}: is missing, and dvc.yaml asks for it; write `{name}: {{}}`")
    for view in (*given.views, *given.sources, *given.data.values()):
        check_known(view, params.views, "benchmark")
    for data in (*given.sources.values(), *given.data):
        check_known(data, params.data, "benchmark")
    for view in given.views:
        check_known(view, given.sources, "benchmark.sources")
    for view, data in (*given.sources.items(), *((view, data) for data, view in given.data.items())):
        if params.views[view].data != data:
            raise SettingsError(
                f"benchmark: view {view} is of data set {params.views[view].data}, not of {data}; mend it"
            )


def load_params(path: Path = DEFAULT, overrides: Mapping[str, Any] | None = None) -> Params:
    """Read params.yaml; LOUPE_STORE replaces ``store``, *overrides* top-level keys. Raises SettingsError."""
    if not path.exists():
        raise SettingsError(f"{path}: not found; run from the project's folder or name the file with --params")
    given = {"store": os.environ[STORE_VARIABLE]} if os.environ.get(STORE_VARIABLE) else {}
    values = {**_read(path), **given, **(overrides or {})}
    params = build(Params, values, str(path))
    _check_given(params, values)
    return params


def params_or_defaults(path: Path) -> Params:
    """``load_params``; the defaults where no file was named and there is no params.yaml: a bundle alone needs none."""
    if path.exists() or path != DEFAULT:
        return load_params(path)
    return Params({}, {}, store=os.environ.get(STORE_VARIABLE) or Params.store)


def train_settings(path: Path) -> TrainSettings:
    """The knobs of training in *path*; the defaults where no file was named and there is no params.yaml."""
    return params_or_defaults(path).train


def _read(path: Path) -> dict[str, Any]:
    try:
        values = parsed_yaml(path.read_text()) or {}
    except ValueError as error:  # YamlError, or no text
        where = f", line {line}" if (line := getattr(error, "line", None)) else ""
        raise SettingsError(f"{path}{where}: is no YAML; mend it there") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: holds no keys; begin with data and views")
    return values
