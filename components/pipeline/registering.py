"""``loupe register``: a run of ``loupe fit`` as a version in the registry, to be served, monitored and retrained."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.core.artefacts import file_hash, lock_of, locked, read_json, reading, tree_hash
from components.core.checks import check_name
from components.core.errors import DataError, SettingsError
from components.core.progress import progress
from components.datasets.loading import read_split
from components.datasets.settings import DataSettings
from components.datasets.versions import version
from components.decision.bundle import Bundle
from components.pipeline.params import FOLDERS, REGISTERED, RETRAIN, Params
from components.pipeline.sections import built
from components.registry.locations import noted
from components.registry.mlflow import Registry
from components.registry.register import DATA_PIN, register_run
from components.retraining.dataset import base_rows, keep_pin, live_name, write_base

log = logging.getLogger("loupe")
FIRST = "the first version of this name"


def register_fitted(
    params: Params, run: Path, name: str, data: Path | None = None, data_root: Path = Path("data")
) -> list[str]:
    """Register the *run*'s bundle as *name*; its first version becomes champion. What to tell of it.

    With *data*, the folder that fit was given, its pictures become a pinned version of the data set ``<name>-live``,
    from which a retraining goes on; without it *name* has to be a view of params.yaml to be retrained. Raises
    SettingsError, DataError and BundleError before anything is registered.
    """
    check_name(name, "the name", FOLDERS)
    run = _run_of(run)
    if data is not None and not data.is_dir():
        raise SettingsError(f"{data}: is not a folder; give the folder that `loupe fit` was given with --data")
    with _whole(run):
        if data is not None:
            _require_same(run, data)
        registry = Registry(params.registry)
        pin = _pinned(params, run, name, data, data_root) if data is not None else None
        tags = {DATA_PIN: noted(pin, registry.folder), "data_version": version(pin)} if pin else {}
        given = register_run(registry, name, _detector(run), run, tags)
    return [*_placed(registry, name, given, run), _retrained(params, name, pin is not None)]


def _run_of(run: Path) -> Path:
    """The run's folder; that of a bundle inside a run, too."""
    for folder in (run, run.parent) if run.name == "bundle" else (run,):
        if all((folder / part).exists() for part in ("run.json", "model/run.json", "bundle/manifest.json")):
            return folder
    raise DataError(f"{run}: holds no finished run; give a folder that `loupe fit` or `loupe ensemble` wrote")


@contextmanager
def _whole(run: Path) -> Iterator[None]:
    """Nobody writes the run meanwhile, and its bundle is the one that was written."""
    with reading(lock_of(run), str(run)):
        Bundle.open(run / "bundle")
        wanted = read_json(run / "run.json").get("outputs", {}).get("bundle")
        if wanted not in (None, tree_hash(run / "bundle")):
            raise DataError(f"{run / 'bundle'}: is not what run.json tells of; fit again, or bring the run back")
        yield


def _detector(run: Path) -> str:
    record = read_json(run / "run.json")
    members = record.get("sizes", {}).get("detectors") or [made["detector"] for made in record.get("members", [])]
    return "+".join(members) or str(record["request"]["detector"])


def _require_same(run: Path, data: Path) -> None:
    """Raise DataError unless *data* holds the pictures that the run has learned from and is calibrated with."""
    table = read_split(run)
    learned = table[table["split"].isin(["fit", "calibrate"])]
    pairs = list(zip(learned["image_id"], learned["sha256"], strict=True))
    other = [
        name
        for name, digest in progress(pairs, "the run's pictures")
        if not (data / name).is_file() or file_hash(data / name) != digest
    ]
    if other:
        raise DataError(
            f"{data}: {len(other)} of {len(pairs)} pictures that {run} learned from are missing or changed, first "
            f"{other[0]}; give the folder that fit was given"
        )


def _pinned(params: Params, run: Path, name: str, data: Path, data_root: Path) -> Path:
    """The pin of the run's pictures as a version of the data set that retrainings of *name* write; kept by content."""
    request: dict[str, Any] = read_json(run / "run.json")["request"]
    settings = built(DataSettings, request["sections"], "data", adapter=request["adapter"], name=data.resolve().name)
    groups = tuple(request["groups"]) if request.get("groups") else None
    with locked(Path(params.artefacts) / RETRAIN / "lock"):  # a retraining works in the same folder
        pinned = write_base(data, base_rows(data, settings, groups), data_root / live_name(name))
        return keep_pin(pinned, Path(params.artefacts) / REGISTERED / name)


def _placed(registry: Registry, name: str, given: str, run: Path) -> list[str]:
    if registry.champion(name) is None:
        registry.promote(name, given, (FIRST,), {"run": run / "run.json"})
        return [f"{name}: version {given} is registered and champion; `loupe serve {name}` serves it"]
    return [f"{name}: version {given} is registered; `loupe promote {name} {given} --reason ...` serves it"]


def _retrained(params: Params, name: str, pinned: bool) -> str:
    if pinned:
        return f"`loupe monitor {name}` watches it, and a retraining goes on from the data set {live_name(name)}"
    if name in params.views:
        return f"`loupe monitor {name}` watches it, and a retraining goes on from the view {name}"
    return (
        f"`loupe monitor {name}` watches it; to retrain it too, register it with --data DIR or add the view {name} "
        "to params.yaml"
    )
