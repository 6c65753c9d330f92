"""The components in order, over one layout of artefacts: what DVC, the Prefect flows and ``loupe fit`` all call.

artefacts/<data>/{manifest,validation}
artefacts/<view>/{split,synthetic}                      (a joined view: from the splits of its members)
artefacts/<view>/<detector>/{model,graph,calibration,evaluation,bundle}
artefacts/<view>/folds, artefacts/<view>/<detector>/folds    (where too few good pictures could be held out)
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from components.core import system
from components.core.boundary import boundary
from components.core.cache import features_folder
from components.core.errors import SettingsError
from components.datasets.settings import SplitSettings
from components.pipeline import crossing
from components.pipeline.params import Params, load_params

if TYPE_CHECKING:
    from components.training.settings import TrainSettings

SIZES = "-"  # in the name of an ensemble, between the sizes of one detector; no detector has it in its own
JOINT = "+"  # the same between different detectors, which may have several sizes each


@dataclass(frozen=True)
class Stages:
    """The stages of one view under *params*; *data_root* holds the data sets."""

    params: Params
    view: str
    data_root: Path = Path("data")

    @property
    def data(self) -> Path:
        """What image ids lie below: the data set's folder, the common root for a joined view."""
        return self.data_root / self.params.view(self.view).data

    @property
    def members(self) -> tuple["Stages", ...]:
        """The stages of the views that this one joins; empty for a view of one data set."""
        return tuple(replace(self, view=name) for name in self.params.view(self.view).views)

    @property
    def sources(self) -> tuple["Stages", ...]:
        """Stages of one view per data set: where manifest and validation are made."""
        return tuple({part.shared: part for part in self.members or (self,)}.values())

    @property
    def shared(self) -> Path:
        """Where what belongs to the data set lies, whatever the view."""
        view = self.params.view(self.view)
        if view.views:
            raise SettingsError(f"{self.view} joins views; manifest and validation are those of its members")
        return Path(self.params.artefacts) / view.data

    @property
    def folder(self) -> Path:
        return Path(self.params.artefacts) / self.view

    def of(self, detector: str) -> Path:
        """The folder of one detector's artefacts."""
        return self.folder / detector

    def manifest(self) -> Path:
        from components.datasets.manifest import make_manifest

        return make_manifest(self.data, self.shared / "manifest", self.params.data[self.data.name])

    def validate(self) -> Path:
        from components.datasets.settings import ValidationSettings
        from components.datasets.validation.validate import validate

        settings = self.params.validation.get(self.data.name, ValidationSettings())
        size = self.params.evaluation.map_size
        return validate(self.shared / "manifest", self.data, self.shared / "validation", settings, size)

    def split(self) -> Path:
        from components.datasets.splits import join, split

        if self.members:
            parts = {m.view: (m.folder / "split", m.data.relative_to(self.data)) for m in self.members}
            return join(parts, self.folder / "split", self.view)
        return split(self.shared / "validation", self.data, self.folder / "split", self.split_settings)

    @property
    def split_settings(self) -> SplitSettings:
        """Those of all views with what this one says of itself."""
        view, known = self.params.view(self.view), self.params.split
        classes = view if view.classes else known
        return replace(
            known,
            groups=view.groups,
            together=view.together or known.together,
            normal=classes.normal,
            anomalous=classes.anomalous,
        )

    def synthesise(self) -> Path:
        from components.training.difficulty import graded

        # Before anything is made from the split: no training ends with too few good images to calibrate on.
        folds = self.folds
        crossing.tell_alike(self, folds)
        if folds:
            return crossing.synthesise(self, folds)
        out = self.folder / "synthetic"
        known = self.params
        return graded(self.folder / "split", self.data, out, known.synthesis, known.train, known.seed)

    @property
    def folds(self) -> int:
        """In how many folds all good pictures calibrate, 0: the split's side does that. Raises CalibrationError."""
        return crossing.count(self)

    @property
    def shipped(self) -> Path:
        """The split that says what the models here have learned from."""
        return crossing.shipped(self) if self.folds else self.folder / "split"

    def train(self, detector: str) -> Path:
        from components.pipeline.foresight import require_room
        from components.training.train import train

        require_room(self, [detector])
        if folds := self.folds:
            return crossing.train(self, detector, folds)
        split, synthetic, out = self.folder / "split", self.folder / "synthetic", self.of(detector) / "model"
        return train(detector, split, synthetic, self.data, out, self.training, self.params.seed)

    @property
    def training(self) -> "TrainSettings":
        """How detectors are trained here, within the minutes of the pipeline where training names none of its own."""
        return replace(self.params.train, minutes=self.params.train.minutes or self.params.pipeline.minutes)

    def combine(self, ensemble: str) -> Path:
        """The model of an ensemble in place of training: of detectors that are trained and calibrated."""
        from components.training.combine import Made, combine

        names = ensemble.split(JOINT if JOINT in ensemble else SIZES)
        if folds := self.folds:
            return crossing.combine(self, ensemble, names, folds)
        members = [Made(self.of(name) / "model", self.of(name) / "calibration") for name in names]
        split, synthetic, out = self.folder / "split", self.folder / "synthetic", self.of(ensemble) / "model"
        return combine(members, split, synthetic, self.data, out, self.params.train, self.params.seed)

    def trace(self, detector: str) -> Path:
        """The graph of a trained model: what calibrates and is evaluated goes through it, and it ships."""
        from components.export.trace import trace

        at = self.of(detector)
        return trace(at / "model", self.shipped, self.data, at / "graph", self.params.export)

    def traced(self, detector: str) -> Path:
        """The folder of that graph, which is made where it is not yet of the model as it is now."""
        from components.decision.traced import stands

        graph = self.of(detector) / "graph"
        return graph if stands(graph, self.of(detector) / "model") else self.trace(detector)

    def calibrate(self, detector: str) -> Path:
        if folds := self.folds:
            return crossing.calibrate(self, detector, folds)
        return self._calibrated(detector, self.traced(detector))

    def calibrate_member(self, detector: str) -> Path:
        """What an ensemble takes its scales from; its member ships in no graph of its own, and gets none."""
        if folds := self.folds:
            return crossing.calibrate(self, detector, folds, ships=False)
        return self._calibrated(detector, None)

    def _calibrated(self, detector: str, traced: Path | None) -> Path:
        from components.calibration.calibrate import calibrate

        at, settings = self.of(detector), self.params.calibration
        given = self.folder / "split", self.data, at / "calibration", settings
        return calibrate(at / "model", *given, traced, crossing.alike(self, 0), self.graphs)

    @property
    def graphs(self) -> Path | None:
        """Where the graphs of frozen backbones lie, if they are kept."""
        return features_folder(self.params.train.store)

    def can_evaluate(self) -> bool:
        """Whether the test split has labelled images."""
        from components.datasets.loading import rows

        return bool(rows(self.folder / "split", "test")["label"].isin(["normal", "anomalous"]).any())

    def evaluate(self, detector: str) -> Path:
        from components.evaluation.evaluate import evaluate

        at, settings = self.of(detector), self.params.evaluation
        return evaluate(
            at / "model",
            at / "calibration",
            self.shipped,
            self.data,
            at / "evaluation",
            settings,
            self.params.seed,
            self.traced(detector),
        )

    def export(self, detector: str) -> Path:
        from components.export.export import export

        at, settings = self.of(detector), self.params.export
        given = at / "calibration", self.shipped, self.folder / "synthetic", self.data
        return export(at / "model", *given, at / "bundle", settings, self.traced(detector))

    def report(self, detector: str, run: Path | None = None) -> Path:
        """The page of a trained, exported and, where that is possible, evaluated detector; of *run* if it is given."""
        from components.report.cells import Made
        from components.report.run import report

        validations = tuple(source.shared / "validation" for source in self.sources)
        checks = (self.folder / "synthetic", *(crossing.checks(self, folds) if (folds := self.folds) else ()))
        made = Made(self.data, self.shipped, checks, validations)
        return report(run or self.of(detector), made)


def main(arguments: list[str]) -> None:
    """``python -m components.pipeline.stages STAGE VIEW [DETECTOR] [--params FILE]``: as dvc.yaml calls it."""
    import argparse

    from components.core.progress import show_logs, write_curves

    parser = argparse.ArgumentParser(prog="components.pipeline.stages")
    for name, count in (("stage", None), ("view", None), ("detector", "?")):
        parser.add_argument(name, nargs=count)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--tethered", action="store_true", help="end with the process that holds our standard input")
    parser.add_argument("--curves", type=Path, help="a file that the history of the training is added to")
    asked = parser.parse_args(arguments)
    show_logs()
    if asked.curves:
        write_curves(asked.curves)
    if asked.tethered:
        system.end_with_parent()
    with boundary(""):
        stages = Stages(load_params(asked.params), asked.view, asked.data)
        stages.params.view(asked.view)  # a slip is told before torch is loaded
        getattr(stages, asked.stage)(*([asked.detector] if asked.detector else []))


if __name__ == "__main__":
    system.in_utf8("components.pipeline.stages")
    system.collect_rarely()
    words = sys.argv[1:]
    if words[:1] == ["--standby"]:  # with --params FILE behind it, and nothing more
        from components.pipeline.standby import awaited

        words = awaited(Path(words[-1]))
    main(words)
