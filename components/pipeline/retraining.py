"""One retraining, step by step; the flow calls the steps, and each can be repeated after a crash."""

import logging
import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from components.core.artefacts import locked, read_json
from components.core.errors import SettingsError, StageError
from components.core.settings import plain
from components.datasets.settings import DataSettings
from components.datasets.versions import version
from components.decision.bundle import Manifest
from components.monitoring.monitor import find
from components.monitoring.verdict import Verdict
from components.pictures.decoding import Decoding
from components.pipeline.company import company
from components.pipeline.params import Params, View, load_params
from components.pipeline.sizing import Asked, Sized, members_file, plans, reference_of
from components.pipeline.stages import Stages
from components.registry.choice import choose
from components.registry.gate import Gate, gate
from components.registry.locations import noted, place_of
from components.registry.mlflow import Registry
from components.registry.register import DATA_PIN, register_run
from components.retraining import dataset
from components.retraining.candidates import gather
from components.retraining.compare import compare
from components.retraining.outcomes import Retrained, claim, outcome_of, outcomes, recent, refusal_of, store_outcome
from components.storage import Store, open_store

__all__ = ["Retrained", "Retraining", "outcomes"]

log = logging.getLogger("loupe")


@dataclass(frozen=True)
class Retraining:
    """The retraining that one verdict asks for."""

    params: Params
    verdict: Verdict
    data_root: Path = Path("data")

    @classmethod
    def of(cls, params: Params, verdict_id: str, data_root: Path = Path("data")) -> "Retraining":
        return cls(params, find(open_store(params.store), verdict_id), data_root)

    @property
    def store(self) -> Store:
        return open_store(self.params.store)

    @property
    def folder(self) -> Path:
        return Path(self.params.artefacts) / "retrain" / self.verdict.id

    @property
    def live(self) -> str:
        return dataset.live_name(self.verdict.model)

    @property
    def derived(self) -> Path:
        """The params file of the challenger's stages."""
        return self.folder / "params.yaml"

    def alone(self) -> AbstractContextManager[None]:
        """Hold the lock of all retrainings on this machine."""
        return locked(self.folder.parent / "lock")

    def decided(self) -> Retrained | None:
        """The stored outcome, when this window was retrained on already."""
        return outcome_of(self.store, self.verdict.id)

    def claim(self, at: datetime) -> None:
        """Take this retraining among all machines of the store. Raises StageError where another one is at it."""
        if who := claim(self.store, self.verdict.id, at, self.params.monitor.again_hours):
            raise StageError(f"{self.verdict.id}: is being retrained on by {who}; its decision comes from there")

    def hindrance(self, at: datetime) -> str | None:
        """Why not to begin: another champion meanwhile, or the budget of a day is spent."""
        registry = Registry(self.params.registry)
        champion = registry.champion(self.verdict.model)
        if champion is None or self._bundle(registry, champion)[1] != self.verdict.model_version:
            return f"the champion is no longer {self.verdict.model_version}, which the verdict is about"
        made = len([d for d in recent(self.store, self.verdict.model, at - timedelta(days=1)) if d.challenger])
        limit = self.params.retrain.per_day
        return f"{made} retrainings in 24 hours; retrain.per_day is {limit}" if made >= limit else None

    def _bundle(self, registry: Registry, champion: str) -> tuple[Path, str]:
        at = self.folder / "champion" / champion
        bundle = registry.fetch(self.verdict.model, champion, at)
        return bundle, Manifest.read(bundle).version

    def _decoding(self) -> Decoding:
        """How the champion decodes pictures: the candidates were seen so, and the challenger goes on with it."""
        registry = Registry(self.params.registry)
        bundle, _ = self._bundle(registry, str(registry.champion(self.verdict.model)))
        return Manifest.read(bundle).decoding

    def gather(self) -> Path:
        """The candidates, frozen by the first call."""
        out = self.folder / "candidates"
        if not (out / "candidates.json").exists():
            settings, features = self.params.retrain, self.params.train.store
            gather(self.store, self.verdict, out, settings, self.params.seed, features, self._decoding())
        return out

    def refused_before(self) -> str | None:
        """The refusal of this very pool, which would end the same way."""
        pool = read_json(self.folder / "candidates" / "candidates.json")["pool"]
        same = refusal_of(self.store, self.verdict.model, pool)
        return f"these candidates were refused before, see {same.verdict}" if same else None

    def write_version(self) -> Path:
        """The new data version, pinned, and the params file of its stages; returns the copy of the pin."""
        registry = Registry(self.params.registry)
        champion = str(registry.champion(self.verdict.model))
        earlier = registry.tags(self.verdict.model, champion).get(DATA_PIN)
        view = View(self.live) if earlier else self.params.view(self.verdict.model)
        if view.views or view.classes or self.params.split.classes:
            what = "joins views" if view.views else "is a view of classes"
            raise SettingsError(f"{self.verdict.model} {what}; retraining is for a view of one data set")
        base = DataSettings("collected", self.live) if earlier else self.params.data[view.data]
        if earlier:
            pin = place_of(earlier, registry.folder, Path(self.params.artefacts))
            dataset.restore(pin, self.data_root / self.live)
        source = self.data_root / view.data
        rows = dataset.base_rows(source, base, view.groups)
        pinned = dataset.write_version(source, rows, self.folder / "candidates", self.data_root / self.live)
        self._write_params()
        return Path(shutil.copyfile(pinned, self.folder / "data.dvc"))

    def _write_params(self) -> None:
        known = self.params
        values: dict[str, Any] = plain(known)
        base = known.view(self.verdict.model).data if self.verdict.model in known.views else self.live
        contract = dict(values["validation"].get(base, {}), expect_masks=False)
        values["artefacts"] = str(self.folder)
        # The gate compares on good pictures that neither model has learned from: none are left by folds.
        values["calibration"]["folds"] = 0
        rules = self._decoding().of_pictures
        values["data"] = {self.live: {"adapter": "collected", "name": self.live, **rules}}
        values["views"] = {self.live: {"data": self.live}}
        values["validation"] = {self.live: contract}
        values["pipeline"]["views"] = [self.live]
        del values["benchmark"]  # of views that this file does not have
        self.derived.write_text(yaml.safe_dump(values))

    @cached_property
    def stages(self) -> Stages:
        """The challenger's stages; only behind ``write_version``, which writes their params file."""
        return Stages(load_params(self.derived), self.live, self.data_root)

    def plan(self) -> list[Sized]:
        """The challengers at their sizes; what members need goes into the params file of their trainings."""
        found = plans(self.stages, self.params.retrain.detectors, Asked(self.params.retrain.size))
        members_file(self.stages, found, self.derived, self.derived)
        return found

    def company(self, challengers: Sequence[Sized]) -> str | None:
        """The ensemble that the evidence asks for, where the pipeline leaves that to it."""
        return company(self.stages, challengers) if self.params.pipeline.grows else None

    def compare(self, challengers: Sequence[Sized], names: Sequence[str]) -> tuple[str, Gate]:
        """The best of the candidates *names* by synthetic anomalies, and what the gate says of it."""
        stages, registry = self.stages, Registry(self.params.registry)
        best = choose({name: stages.of(name) for name in names}, reference_of(challengers)).detector
        champion, _ = self._bundle(registry, str(registry.champion(self.verdict.model)))
        figures = compare(
            champion,
            stages.of(best) / "bundle",
            stages.folder / "split",
            stages.folder / "synthetic",
            stages.data,
            self.verdict.source,
            self.folder / "figures.json",
        )
        summary = read_json(self.folder / "candidates" / "candidates.json")
        settings = self.params.retrain.gate
        return best, gate(figures["champion"], figures["challenger"], summary["contamination"], settings)

    def conclude(self, detector: str, outcome: Gate, at: datetime) -> Retrained:
        """Register the challenger, move the alias or record the refusal, and store the decision."""
        registry, name = Registry(self.params.registry), self.verdict.model
        champion, pin = str(registry.champion(name)), self.folder / "data.dvc"
        summary = read_json(self.folder / "candidates" / "candidates.json")
        tags = {DATA_PIN: noted(pin, registry.folder), "data_version": version(pin), "verdict": self.verdict.id}
        challenger = self._registered(registry) or register_run(
            registry, name, detector, self.stages.of(detector), tags
        )
        evidence = {"figures": self.folder / "figures.json", "pin": pin}
        act = registry.promote if outcome.action == "promote" else registry.refuse
        act(name, challenger, outcome.reasons, evidence, at)
        return store_outcome(
            self.store,
            Retrained(
                outcome.action,
                self.verdict.id,
                name,
                self.verdict.source,
                champion,
                challenger,
                outcome.reasons,
                summary["pool"],
                summary["contamination"],
                version(pin),
                str(self.folder),
                at.isoformat(),
            ),
        )

    def _registered(self, registry: Registry) -> str | None:
        """The version an interrupted attempt has registered already."""
        name = self.verdict.model
        found = [v for v in registry.versions(name) if registry.tags(name, v).get("verdict") == self.verdict.id]
        return found[-1] if found else None

    def refuse(self, reason: str, at: datetime) -> Retrained:
        """Store that nothing was trained, and why."""
        path = self.folder / "candidates" / "candidates.json"
        summary = read_json(path) if path.exists() else {}
        champion = Registry(self.params.registry).champion(self.verdict.model)
        return store_outcome(
            self.store,
            Retrained(
                "refuse",
                self.verdict.id,
                self.verdict.model,
                self.verdict.source,
                str(champion),
                None,
                (reason,),
                summary.get("pool"),
                summary.get("contamination"),
                None,
                str(self.folder),
                at.isoformat(),
            ),
        )
