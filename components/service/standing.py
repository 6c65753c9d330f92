"""The models of the registry as people look at them: who serves, who wants to, what the gate said; and the way back."""

import json
from typing import Any, cast

from components.core.errors import RegistryError, RequestError, StorageError
from components.registry.mlflow import Registry
from components.registry.overview import describe_models
from components.service.answers import Service
from components.service.desk import DECISIONS
from components.service.point import require_seen

FOLDER = 100  # decisions on a bundle folder that are shown


def standing(service: Service) -> dict[str, Any]:
    """What serves, and what the registry, where there is one, knows of this name: versions with figures, decisions."""
    shadow = service.shadow.told() if service.shadow else None
    told: dict[str, Any] = {
        "shadow": shadow,
        "served": service.champion.identity(),
        "champion": None,
        "challenger": None,
        "back": None,
    }
    registry = cast("Registry | None", service.champion.registry)
    if registry is None:
        return {**told, "versions": [], "decisions": _folder_decisions(service)}
    name = service.champion.name
    known = describe_models(registry, name)[name]
    moves = [d for d in known["decisions"] if d["action"] != "refuse" and d["version"] == known["champion"]]
    back = next((d["previous"] for d in reversed(moves) if d["previous"]), None)
    versions = [
        {"version": v, "tags": tags, "metrics": registry.metrics(name, v)} for v, tags in known["versions"].items()
    ]
    shown = {k: known[k] for k in ("champion", "challenger")}
    return {**told, **shown, "back": back, "versions": versions[::-1], "decisions": known["decisions"][::-1]}


def _folder_decisions(service: Service) -> list[Any]:
    store = service.recorder.store
    try:
        return [json.loads(store.get(key)) for key in sorted(store.keys(f"{DECISIONS}/"), reverse=True)[:FOLDER]]
    except StorageError:
        return []


def roll_back(service: Service, seen: str, who: str, reason: str) -> dict[str, Any]:
    """Restore the champion before the one that the page showed. Raises RequestError."""
    registry = cast("Registry | None", service.champion.registry)
    if registry is None:
        raise RequestError(422, "a bundle folder has no earlier version; serve a registered name to have them")
    require_seen(registry.champion(service.champion.name) == seen)
    try:
        decision = registry.rollback(service.champion.name, (f"by hand, {who}: {reason}",))
    except RegistryError as error:
        raise RequestError(422, str(error)) from error
    service.champion.renew()
    return {"version": decision.version, "previous": decision.previous, "model": service.champion.identity()}
