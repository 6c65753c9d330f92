"""MLflow, and nothing else of Loupe, is spoken to here: SQLite and a local folder unless configured otherwise."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from components.core.artefacts import atomic_dir, file_hash, locked, write_json
from components.core.errors import RegistryError
from components.core.system import flush_below
from components.registry.settings import RegistrySettings

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True)
class Decision:
    """What was decided on a model, why, and from which evidence; stored once, never edited."""

    action: Literal["promote", "rollback", "refuse"]
    name: str
    version: str
    previous: str | None
    reasons: tuple[str, ...]
    evidence: dict[str, str]
    at: str


class Registry:
    """One experiment's registered models."""

    def __init__(self, settings: RegistrySettings) -> None:
        import mlflow

        # Not for users: that it makes its tables.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        self.folder = Path(settings.folder).resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.uri = settings.uri or f"sqlite:///{self.folder / 'mlflow.db'}"
        mlflow.set_tracking_uri(self.uri)
        self.client: Any = mlflow.MlflowClient(self.uri)
        with locked(self.folder / "lock"):
            found = self.client.get_experiment_by_name(settings.experiment)
            place = settings.artefacts or (self.folder / "artefacts").as_uri()
            self.experiment = (
                found.experiment_id if found else self.client.create_experiment(settings.experiment, place)
            )

    def register(
        self, name: str, bundle: Path, params: dict[str, Any], metrics: dict[str, float], tags: dict[str, str]
    ) -> str:
        """A new version of *name* with its run and bundle; alias challenger."""
        run = self.client.create_run(self.experiment, tags=tags, run_name=f"{name}")
        for key, value in params.items():
            self.client.log_param(run.info.run_id, key, value)
        for key, number in metrics.items():
            self.client.log_metric(run.info.run_id, key, number)
        self.client.log_artifacts(run.info.run_id, str(bundle), "bundle")
        self.client.set_terminated(run.info.run_id)
        flush_below(self.folder)  # a version whose files a power cut could still take must not be known to anybody
        self._ensure(name)
        source = f"{run.info.artifact_uri}/bundle"
        version = self.client.create_model_version(name, source, run.info.run_id, tags=tags).version
        self.client.set_registered_model_alias(name, CHALLENGER, version)
        return str(version)

    def _ensure(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.get_registered_model(name)
        except MlflowException:
            self.client.create_registered_model(name)

    def promote(
        self, name: str, version: str, reasons: tuple[str, ...], evidence: dict[str, Path], at: datetime | None = None
    ) -> Decision:
        """Move the alias champion to *version* in one step, with a stored decision."""
        with locked(self.folder / "lock"):
            return self._move("promote", name, version, reasons, evidence, at)

    def rollback(self, name: str, reasons: tuple[str, ...] = (), at: datetime | None = None) -> Decision:
        """Restore the champion before the present one. Raises RegistryError when there was none."""
        with locked(self.folder / "lock"):
            made = [d for d in self.decisions(name) if d.action != "refuse"]
            moves = [d for d in made if d.version == self.champion(name) and d.previous]
            if not moves:
                raise RegistryError(f"{name}: there is no earlier champion to go back to")
            return self._move("rollback", name, str(moves[-1].previous), reasons, {}, at)

    def refuse(
        self, name: str, version: str, reasons: tuple[str, ...], evidence: dict[str, Path], at: datetime | None = None
    ) -> Decision:
        """Store that *version* did not become champion, and why; no alias moves."""
        with locked(self.folder / "lock"):
            return self._decide("refuse", name, version, reasons, evidence, at)

    def _move(
        self,
        action: Literal["promote", "rollback"],
        name: str,
        version: str,
        reasons: tuple[str, ...],
        evidence: dict[str, Path],
        at: datetime | None,
    ) -> Decision:
        # The alias moves before the record is made durable, under the lock: a decision on disk has taken place.
        return self._decide(
            action,
            name,
            version,
            reasons,
            evidence,
            at,
            lambda: self.client.set_registered_model_alias(name, CHAMPION, version),
        )

    def _decide(
        self,
        action: Literal["promote", "rollback", "refuse"],
        name: str,
        version: str,
        reasons: tuple[str, ...],
        evidence: dict[str, Path],
        at: datetime | None,
        act: Callable[[], None] = lambda: None,
    ) -> Decision:
        if version not in self.versions(name):
            raise RegistryError(f"{name}: no version {version}; known are {', '.join(self.versions(name)) or 'none'}")
        hashes = {str(path): file_hash(path) for path in evidence.values()}
        when = (at or datetime.now(UTC)).isoformat()
        decision = Decision(action, name, version, self.champion(name), reasons, hashes, when)
        folder = self.folder / "decisions" / name
        folder.mkdir(parents=True, exist_ok=True)
        act()
        write_json(folder / f"{len(list(folder.glob('*.json'))) + 1:05d}.json", decision)
        return decision

    def decisions(self, name: str) -> list[Decision]:
        """All decisions on *name*, oldest first."""
        from components.core.artefacts import read_json
        from components.core.settings import build

        paths = sorted((self.folder / "decisions" / name).glob("*.json"))
        return [build(Decision, read_json(path), str(path)) for path in paths]

    def champion(self, name: str) -> str | None:
        """The champion's version."""
        return self._alias(name, CHAMPION)

    def challenger(self, name: str) -> str | None:
        """The challenger's version."""
        return self._alias(name, CHALLENGER)

    def _alias(self, name: str, alias: str) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            return str(self.client.get_model_version_by_alias(name, alias).version)
        except MlflowException:
            return None

    def versions(self, name: str) -> list[str]:
        """All versions, oldest first."""
        found = self.client.search_model_versions(f"name='{name}'")
        return sorted((str(v.version) for v in found), key=int)

    def names(self) -> list[str]:
        """All registered names."""
        return sorted(str(model.name) for model in self.client.search_registered_models())

    def tags(self, name: str, version: str) -> dict[str, str]:
        """What was noted of a version when it was registered."""
        return dict(self.client.get_model_version(name, version).tags)

    def metrics(self, name: str, version: str) -> dict[str, float]:
        """The figures that were registered with a version."""
        return dict(self.client.get_run(self.client.get_model_version(name, version).run_id).data.metrics)

    def fetch(self, name: str, version: str, out: Path) -> Path:
        """A version's bundle in *out*: downloaded, whole or not at all, where it is not there yet."""
        import mlflow

        if not (out / "bundle" / "manifest.json").exists():
            source = self.client.get_model_version(name, version).source
            with atomic_dir(out) as scratch:
                mlflow.artifacts.download_artifacts(source, dst_path=str(scratch), tracking_uri=self.uri)
        return out / "bundle" if (out / "bundle").exists() else out
