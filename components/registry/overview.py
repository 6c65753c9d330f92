"""What is registered, for people and for machines."""

from typing import Any

from components.core.errors import RegistryError
from components.core.settings import plain
from components.registry.mlflow import Registry
from components.registry.rows import Rows

FIGURES = {  # of a version, as registered: what a person calls it
    "synthetic_auroc": "AUROC on synthetic anomalies",
    "test_image_auroc": "image AUROC on test pictures",
    "false_alarm_rate": "false alarms on test pictures",
    "miss_rate": "misses on test pictures",
}


def describe_models(registry: Registry | Rows, name: str | None) -> dict[str, Any]:
    """By name: champion, challenger, versions with their tags, and all decisions, oldest first.

    Raises RegistryError where *name* is given and not registered.
    """
    if name and name not in (known := registry.names()):
        raise RegistryError(f"{name}: no model of this name is registered; known are {', '.join(known) or 'none'}")
    return {
        model: {
            "champion": registry.champion(model),
            "challenger": registry.challenger(model),
            "versions": {version: registry.tags(model, version) for version in registry.versions(model)},
            "decisions": plain(registry.decisions(model)),
        }
        for model in ([name] if name else registry.names())
    }


def champion_lines(registry: Registry, name: str, more: str = "") -> list[str]:
    """What serves under *name* and what is known of it; last the command that serves it, with the words *more*."""
    version = registry.champion(name)
    if version is None:
        return [f"{name}: has no champion; `loupe models {name}` says why"]
    known = registry.metrics(name, version)
    lines = [f"{name}: champion is {registry.tags(name, version).get('detector', '?')}, version {version}"]
    lines += [f"  {what:32} {known[figure]:.3f}" for figure, what in FIGURES.items() if figure in known]
    return [*lines, f"next: loupe serve {name}{more}"]


def overview_lines(models: dict[str, Any]) -> list[str]:
    """One line per version and decision."""
    lines = [] if models else ["no models are registered; `loupe pipeline` registers the first"]
    for name, model in models.items():
        lines.append(f"{name}: champion {model['champion']}, challenger {model['challenger']}")
        lines += [f"  version {v}: {tags.get('detector', '?')}" for v, tags in model["versions"].items()]
        lines += [
            f"  {d['at'][:19]} {d['action']} {d['version']}: {'; '.join(d['reasons'])}" for d in model["decisions"]
        ]
    return lines
