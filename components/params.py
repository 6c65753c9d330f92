"""params.yaml: every knob, loaded once into frozen typed records."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from components.calibration import CalibrationSettings
from components.datasets.manifest import DataSettings
from components.datasets.splits import SplitSettings
from components.errors import SettingsError
from components.evaluation import EvaluationSettings
from components.export import ExportSettings
from components.monitoring import MonitorSettings
from components.registry import RegistrySettings
from components.retraining import RetrainSettings
from components.scoring.service import ServiceSettings
from components.scoring.settings import InboxSettings
from components.settings import build
from components.synthesis import SynthesisSettings
from components.validation import ValidationSettings

STORE_VARIABLE = "LOUPE_STORE"


@dataclass(frozen=True)
class View:
    """What a detector is trained on: a data set, some of its groups, or other views joined."""

    data: str = ""
    groups: tuple[str, ...] | None = None
    views: tuple[str, ...] = ()


@dataclass(frozen=True)
class TrainParams:
    """Training knobs; *detectors* holds overrides of each method's preset under its name."""

    preset: str = "cpu"
    precision: str = "32-true"
    checkpoint_every: float = 20.0
    store: str | None = ".cache/features"
    store_limit_gb: float = 20.0
    detectors: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Selection:
    """A matrix of views and detectors."""

    views: tuple[str, ...] = ("elpv-mono",)
    detectors: tuple[str, ...] = ("fastflow", "patchcore")


@dataclass(frozen=True)
class Benchmark(Selection):
    """The matrix of dvc.yaml, with the data set of each view and one view of each data set."""

    sources: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Params:
    """All of params.yaml."""

    data: dict[str, DataSettings]
    views: dict[str, View]
    seed: int = 0
    artefacts: str = "artefacts"
    store: str = "store"
    pipeline: Selection = Selection()
    benchmark: Benchmark = Benchmark()
    validation: dict[str, ValidationSettings] = field(default_factory=dict)
    split: SplitSettings = SplitSettings()
    synthesis: SynthesisSettings = SynthesisSettings()
    train: TrainParams = TrainParams()
    calibration: CalibrationSettings = CalibrationSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    export: ExportSettings = ExportSettings()
    registry: RegistrySettings = RegistrySettings()
    service: ServiceSettings = ServiceSettings()
    inbox: InboxSettings = InboxSettings()
    monitor: MonitorSettings = MonitorSettings()
    retrain: RetrainSettings = RetrainSettings()

    def view(self, name: str) -> View:
        """Raises SettingsError when there is no such view, or none that can be built."""
        if name not in self.views:
            raise SettingsError(f"params.yaml: views.{name} does not exist; known are {', '.join(self.views)}")
        view, where = self.views[name], f"params.yaml: views.{name}"
        if bool(view.data) == bool(view.views) or (view.views and view.groups):
            raise SettingsError(f"{where}: give data (with or without groups), or views to join")
        for part in view.views:
            if part not in self.views or self.views[part].views:
                raise SettingsError(f"{where}.views: {part} is no view of a data set; name those that it joins")
        return view


def load_params(path: Path = Path("params.yaml"), overrides: Mapping[str, Any] | None = None) -> Params:
    """Read params.yaml; LOUPE_STORE replaces ``store``, *overrides* top-level keys. Raises SettingsError."""
    if not path.exists():
        raise SettingsError(f"{path}: not found; run from the project's folder or name the file with --params")
    values = yaml.safe_load(path.read_text()) or {}
    given = {"store": os.environ[STORE_VARIABLE]} if os.environ.get(STORE_VARIABLE) else {}
    return build(Params, {**values, **given, **(overrides or {})}, str(path))
