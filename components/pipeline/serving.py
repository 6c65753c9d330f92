"""``loupe serve``: what the service's pages need of the rooms that it cannot see: verdicts, and another threshold."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.core.settings import plain
from components.monitoring.monitor import verdicts
from components.pipeline.params import Params
from components.registry.mlflow import Registry
from components.service.desk import DECISIONS, Desk
from components.storage import open_store

MARK = "manifest.json"  # of a bundle folder


def desk_of(params: Params, name: str) -> Desk:
    """For the service of *name*, a bundle folder or a registered model."""
    store = open_store(params.store)

    def of_source(source: str, version: str) -> Sequence[Mapping[str, Any]]:
        return [plain(verdict) for verdict in verdicts(store, source, version)]

    def repoint(alpha: float, reasons: tuple[str, ...]) -> Mapping[str, Any]:
        if (Path(name) / MARK).exists():
            return repointed_folder(params, Path(name), alpha, reasons)
        return repointed_model(params, name, alpha, reasons)

    return Desk(of_source, repoint)


def repointed_model(params: Params, name: str, alpha: float, reasons: tuple[str, ...]) -> Mapping[str, Any]:
    """A version of the champion at *alpha*, as ``loupe calibrate`` makes it, promoted with a decision record."""
    from components.pipeline.operating import PointRequest, set_registered  # torch and pandas, which a line never needs

    registry = Registry(params.registry)
    done, version = set_registered(PointRequest(Path(name), alpha=alpha), name, registry)
    return dict(plain(registry.promote(name, version, (*reasons, *done.lines()), {})))


def repointed_folder(params: Params, bundle: Path, alpha: float, reasons: tuple[str, ...]) -> Mapping[str, Any]:
    """The folder's bundle at *alpha*, with its run where it is one's; the decision is stored with the score log."""
    from components.pipeline.operating import PointRequest, set_point

    run = bundle.resolve().parent
    target = run if bundle.resolve().name == "bundle" and (run / "run.json").exists() else bundle
    done = set_point(PointRequest(target, alpha=alpha))
    at = datetime.now(UTC).isoformat()
    decision = {
        "action": "threshold",
        "name": bundle.resolve().name,
        "version": None,
        "reasons": [*reasons, *done.lines()],
        "at": at,
    }
    open_store(params.store).put_new(f"{DECISIONS}/{at}.json", json.dumps(decision, indent=1).encode())
    return decision
