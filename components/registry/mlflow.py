"""MLflow, and nothing else of Loupe, is spoken to here: SQLite and a local folder unless configured otherwise."""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from components.core.artefacts import atomic_dir, file_hash, locked, read_json, write_json
from components.core.audit import NAME as AUDIT
from components.core.audit import audited
from components.core.checks import check_name
from components.core.errors import BundleError, RegistryError
from components.core.places import writing
from components.core.secret import public
from components.core.settings import build
from components.core.signing import TRUST, signed, verify
from components.core.system import flush_below
from components.registry.curves import MARK, Point
from components.registry.locations import HOME, below, folder_of, is_local
from components.registry.settings import RegistrySettings

CHAMPION, CHALLENGER = "champion", "challenger"
TRAINING = "training"  # tag of a run: the folder that its training writes to
REGISTERED = "registered"  # tag of a run that has a version
MANIFEST = "manifest"  # tag of a version: the hash of its bundle's manifest.json, which names all others
DESCRIPTION = (
    "Visual inspection of {name}. The alias champion is the version in service, challenger the newest one. Each "
    "version holds a bundle; its MODEL_CARD.md says what it was trained on and what it promises. "
    "`loupe models {name}` lists the decisions."
)
KIND = {"mlflow.experimentKind": "custom_model_development"}
SWITCHES = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # MLflow's own seven take minutes where no server answers
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a plant's computer reports to nobody
    "_MLFLOW_SERVER_ARTIFACT_ROOT": HOME,  # of the experiment Default, which nobody uses: else the working folder
}


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


def decisions_in(registry: Path, name: str) -> list[Decision]:
    """All decisions on *name* in the folder of a registry, oldest first."""
    check_name(name, "the model")
    paths = sorted((registry / "decisions" / name).glob("*.json"))
    return [build(Decision, read_json(path), str(path)) for path in paths]


class Registry:
    """One experiment's registered models."""

    def __init__(self, settings: RegistrySettings) -> None:
        # Not for users: that it makes its tables.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        for key, value in SWITCHES.items():
            os.environ.setdefault(key, value)
        self.folder = Path(settings.folder).resolve()
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self.uri = settings.uri or f"sqlite:///{self.folder / 'mlflow.db'}"
        local = is_local(settings.artefacts)
        self.place = folder_of(settings.artefacts) if local and settings.artefacts else self.folder / "artefacts"
        # An MLflow server keeps what is sent to it, unless an address is named.
        self.served = self.uri.startswith("http") and settings.artefacts is None
        self.client: Any = _Client(self.uri)
        with locked(self.folder / "lock"):
            found = self.client.get_experiment_by_name(settings.experiment)
            place = HOME if local else settings.artefacts
            # The kind makes MLflow's pages show runs and models first, not prompts and traces.
            self.experiment = (
                found.experiment_id if found else self.client.create_experiment(settings.experiment, place, tags=KIND)
            )
            if found and not KIND.items() <= dict(found.tags).items():
                self.client.set_experiment_tag(self.experiment, *next(iter(KIND.items())))

    def _at(self, location: str, run: str) -> Path | None:
        """Where the files at *location* lie on this machine today; None where MLflow brings and takes them."""
        if self.served and location.startswith(HOME):
            return None
        inside = below(location, run)
        return None if inside is None else self.place / inside

    def register(
        self,
        name: str,
        bundle: Path,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        training: tuple[str, Sequence[Point]] = ("", ()),
    ) -> str:
        """A new version of *name* with its run and bundle; alias challenger. Raises SettingsError, RegistryError.

        *training* names the folder of the training and its curves: the run that followed it is taken where there is
        one, and another one is drawn from the curves where there is none.
        """
        check_name(name, "the model")
        place, drawn = training
        run = self._followed(place)
        if run is None:
            run = self.client.get_run(self.begin(name, tags))
            self.draw(run.info.run_id, drawn)
        self._note(run.info.run_id, tags, params, metrics)
        with signed(bundle) as ours:
            source = self._kept(run.info, ours)
        self.end(run.info.run_id)
        flush_below(self.folder)  # a version whose files a power cut could still take must not be known to anybody
        self._ensure(name)
        known = dict(tags) | ({MANIFEST: file_hash(path)} if (path := bundle / "manifest.json").exists() else {})
        about, digest = _about(tags, metrics), known.get(MANIFEST)
        with audited(self.folder / AUDIT, "register", name, None, {"manifest": digest}) as told:
            made = self.client.create_model_version(name, source, run.info.run_id, tags=known, description=about)
            self.client.set_registered_model_alias(name, CHALLENGER, made.version)
            told["after"] = {"version": str(made.version), "manifest": digest}
        return str(made.version)

    def begin(self, name: str, tags: Mapping[str, str], place: str = "") -> str:
        """A run that is named after model and detector; *place* is the folder of a training that it follows."""
        more = {TRAINING: place} if place else {}
        called = " ".join(filter(None, (name, tags.get("detector"))))
        return str(self.client.create_run(self.experiment, tags={**tags, **more}, run_name=called).info.run_id)

    def draw(self, run: str, points: Iterable[Point]) -> None:
        """Add points of curves to a run."""
        from mlflow.entities import Metric

        at = int(time.time() * 1000)
        every = [Metric(name, value, at, step) for name, value, step in points]
        for start in range(0, len(every), 1000):  # MLflow takes no more at once
            self.client.log_batch(run, metrics=every[start : start + 1000])

    def end(self, run: str, status: str = "FINISHED") -> None:
        """No more is added to a run."""
        self.client.set_terminated(run, status)

    def _followed(self, place: str) -> Any:
        """The newest finished run that followed a training in *place* and has no version yet."""
        if not place:
            return None
        asked = f"tags.{TRAINING} = '{place}' AND attributes.status = 'FINISHED'"
        newest = self.client.search_runs([self.experiment], asked, max_results=1, order_by=["start_time DESC"])
        return next((run for run in newest if REGISTERED not in run.data.tags), None)

    def _note(self, run: str, tags: Mapping[str, str], params: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        at = int(time.time() * 1000)
        self.client.log_batch(
            run,
            metrics=[Metric(key, number, at, 0) for key, number in metrics.items()],
            params=[Param(key, str(value)) for key, value in params.items()],
            tags=[RunTag(key, value) for key, value in {**tags, REGISTERED: "yes"}.items()],
        )

    def _kept(self, run: Any, bundle: Path) -> str:
        """Keep the files of *bundle* with its run; returns the location that is stored."""
        if (at := self._at(run.artifact_uri, run.run_id)) is None:
            self.client.log_artifacts(run.run_id, str(bundle), "bundle")
            return f"{run.artifact_uri}/bundle"
        with atomic_dir(at / "bundle") as scratch:
            shutil.copytree(bundle, scratch, dirs_exist_ok=True)
        return f"{HOME}{run.run_id}/artifacts/bundle"

    def _ensure(self, name: str) -> None:
        try:
            self.client.get_registered_model(name)
        except AbsentError:
            self.client.create_registered_model(name, description=DESCRIPTION.format(name=name))

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
        if version in self.versions(name):
            self._require_signed(name, version)
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

    def _require_signed(self, name: str, version: str) -> None:
        """Raises BundleError for a version that no scorer would open: LOUPE_VERIFY_KEYS names who must have signed."""
        if not os.environ.get(TRUST):
            return
        with tempfile.TemporaryDirectory() as scratch:
            verify(self.fetch(name, version, Path(scratch) / "bundle"))

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
        before, after = {"champion": decision.previous}, {"version": version, "reasons": reasons}
        with audited(self.folder / AUDIT, action, name, before, after):
            act()
            write_json(folder / f"{len(list(folder.glob('*.json'))) + 1:05d}.json", decision)
        return decision

    def decisions(self, name: str) -> list[Decision]:
        """All decisions on *name*, oldest first."""
        return decisions_in(self.folder, name)

    def champion(self, name: str) -> str | None:
        """The champion's version."""
        return self._alias(name, CHAMPION)

    def challenger(self, name: str) -> str | None:
        """The challenger's version."""
        return self._alias(name, CHALLENGER)

    def _alias(self, name: str, alias: str) -> str | None:
        try:
            return str(self.client.get_model_version_by_alias(name, alias).version)
        except AbsentError:
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
        found = dict(self.client.get_model_version(name, version).tags)
        return {key: value for key, value in found.items() if key != MANIFEST}

    def metrics(self, name: str, version: str) -> dict[str, float]:
        """The figures that were registered with a version."""
        found = self.client.get_run(self.client.get_model_version(name, version).run_id).data.metrics
        return {key: number for key, number in found.items() if MARK not in key}

    def fetch(self, name: str, version: str, out: Path) -> Path:
        """A version's bundle in *out*: brought, whole or not at all, where it is not there yet.

        A bundle there of another registry's version, or one that was changed, is replaced. Raises RegistryError where
        the registry's own files are gone or are not what was registered.
        """
        known = self.client.get_model_version(name, version)
        wanted = dict(known.tags).get(MANIFEST)
        if not _is(out, wanted) or not _trusted(out):
            with atomic_dir(out) as scratch:
                self._bring(known, scratch)
                if not _is(scratch, wanted):
                    raise RegistryError(
                        f"{name}: the files of version {version} are not those that were registered; "
                        "promote another version, or register this one again"
                    )
        return _bundle_in(out)

    def _bring(self, version: Any, out: Path) -> None:
        """The files of a version into the folder *out*."""
        at = self._at(version.source, version.run_id)
        if at is None:
            self.client.download(version.source, out)
        elif at.is_dir():
            shutil.copytree(at, out / "bundle", dirs_exist_ok=True)
        else:
            raise RegistryError(
                f"{version.name}: the files of version {version.version} are not in {at}; copy the registry's folder "
                "as a whole, or register the model again"
            )


def _about(tags: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """One line on a version, as MLflow shows it."""
    figures = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in sorted(metrics.items()))
    return ": ".join(filter(None, (tags.get("detector", ""), figures)))


def _bundle_in(folder: Path) -> Path:
    return folder / "bundle" if (folder / "bundle").exists() else folder


def _is(folder: Path, wanted: str | None) -> bool:
    """Whether a whole bundle is in *folder*, of the manifest *wanted*; versions of older registries do not say."""
    path = _bundle_in(folder) / "manifest.json"
    if not path.exists() or wanted not in (None, file_hash(path)):
        return False
    named = read_json(path).get("files", {}).items()
    return all((path.parent / name).is_file() and file_hash(path.parent / name) == digest for name, digest in named)


def _trusted(folder: Path) -> bool:
    """Whether the copy in *folder* is still one that would be opened; one that was changed is brought anew."""
    try:
        verify(_bundle_in(folder))
    except BundleError:
        return False
    return True


class AbsentError(RegistryError):
    """There is no such model, version or alias; the registry answers."""


class _Client:
    """MLflow's client, whose failures are RegistryErrors: a registry that does not answer is no empty one."""

    def __init__(self, uri: str) -> None:
        import mlflow

        self.uri = uri
        mlflow.set_tracking_uri(uri)
        with self._told():
            self._client = mlflow.MlflowClient(uri)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            with self._told():
                return getattr(self._client, name)(*given, **named)

        return call

    def download(self, source: str, out: Path) -> None:
        import mlflow

        with self._told():
            mlflow.artifacts.download_artifacts(source, dst_path=str(out), tracking_uri=self.uri)

    @contextmanager
    def _told(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise AbsentError(public(f"{self.uri}: {error.message}; see `loupe models`")) from error
            said = str(error.message).splitlines()[0][:200]
            raise RegistryError(public(f"{self.uri}: the registry does not answer ({said}); is it running?")) from error
