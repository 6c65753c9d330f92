"""Monitoring as the flow and the command line run it: the champion's bundle, the store and the time from outside."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from components.core.errors import RegistryError
from components.decision.bundle import Bundle
from components.monitoring.monitor import mark_sent, monitor, unanswered, unsent
from components.monitoring.verdict import Verdict
from components.pipeline.params import Params
from components.registry.mlflow import Registry
from components.retraining.outcomes import key_of
from components.scorelog import keeping
from components.storage import open_store


def champion_version(params: Params, model: str) -> tuple[Registry, str]:
    """The registry, and which version is champion. Raises RegistryError when there is none."""
    registry = Registry(params.registry)
    version = registry.champion(model)
    if version is None:
        raise RegistryError(f"{model}: has no champion; train one with `loupe pipeline`, or see `loupe models`")
    return registry, version


def champion_bundle(params: Params, model: str) -> Path:
    """The champion's bundle on local disk. Raises RegistryError when there is no champion."""
    registry, version = champion_version(params, model)
    at = Path(params.monitor.workspace).parent / "champions" / model / version
    return registry.fetch(model, version, at)


def open_champion(params: Params, model: str) -> Bundle:
    """The champion, ready to score. Raises RegistryError when there is none."""
    return Bundle.open(champion_bundle(params, model))


def judge_windows(params: Params, model: str, at: datetime | None = None) -> list[Verdict]:
    """Judge all new windows of a model's sources."""
    bundle = champion_bundle(params, model)
    return monitor(open_store(params.store), bundle, model, params.monitor, at or datetime.now(UTC))


def watched_models(params: Params) -> list[str]:
    """The models that the hourly flow judges: those of the pipeline's views, and what else has a champion."""
    registry, views = Registry(params.registry), list(params.pipeline.views)
    return views + [name for name in registry.names() if name not in views and registry.champion(name)]


def tidied(params: Params, at: datetime) -> tuple[int, int]:
    """Join and forget what the score log keeps: how many objects were joined, how many went."""
    return keeping.tidy(open_store(params.store), at, params.scorelog)


def announce(params: Params, send: Callable[[Verdict], str | None], at: datetime | None = None) -> list[str]:
    """Send the events that have not arrived yet or led to nothing; returns the verdicts announced.

    A store may hold verdicts on models of other projects: those are announced there.
    """
    store, now, done = open_store(params.store), at or datetime.now(UTC), []

    def answered(verdict: Verdict) -> bool:
        return store.exists(key_of(verdict.id))

    asked = [*unsent(store), *unanswered(store, params.monitor, now, answered)]
    known = Registry(params.registry).names() if asked else []
    for verdict in asked:
        event = send(verdict) if verdict.model in known else None
        if event:
            mark_sent(store, verdict, event, now)
            done.append(verdict.id)
    return done
