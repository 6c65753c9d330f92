"""The registry read without MLflow, whose import takes seconds: names, versions, tags and aliases from its tables.

Only SQLite, only reading, and only tables of the revision that is known here: anything else is MLflow's to read.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from components.registry.mlflow import CHALLENGER, CHAMPION, MANIFEST, Decision, Registry, decisions_in
from components.registry.settings import RegistrySettings

REVISION = "dc11669786a5"  # of MLflow's tables; test_registry.py fails where the MLflow installed makes another
DELETED = "Deleted_Internal"  # stage of a version that was deleted: MLflow keeps its row


def reader(settings: RegistrySettings) -> "Rows | Registry":
    """What answers questions about the registry soonest."""
    database = Path(settings.folder).resolve() / "mlflow.db"
    if settings.uri is None and (not database.exists() or _revision(database) == REVISION):
        return Rows(database)
    return Registry(settings)


class Rows:
    """The questions of ``Registry`` that change nothing; without a database the registry is empty."""

    def __init__(self, database: Path) -> None:
        self.database = database

    def names(self) -> list[str]:
        """All registered names."""
        return [name for (name,) in self._found("SELECT name FROM registered_models ORDER BY name")]

    def versions(self, name: str) -> list[str]:
        """All versions, oldest first."""
        asked = "SELECT version FROM model_versions WHERE name = ? AND current_stage != ? ORDER BY version"
        return [str(version) for (version,) in self._found(asked, name, DELETED)]

    def tags(self, name: str, version: str) -> dict[str, str]:
        """What was noted of a version when it was registered."""
        asked = "SELECT key, value FROM model_version_tags WHERE name = ? AND version = ? AND key != ? ORDER BY key"
        return dict(self._found(asked, name, int(version), MANIFEST))

    def champion(self, name: str) -> str | None:
        """The champion's version."""
        return self._alias(name, CHAMPION)

    def challenger(self, name: str) -> str | None:
        """The challenger's version."""
        return self._alias(name, CHALLENGER)

    def decisions(self, name: str) -> list[Decision]:
        """All decisions on *name*, oldest first."""
        return decisions_in(self.database.parent, name)

    def _alias(self, name: str, alias: str) -> str | None:
        asked = "SELECT version FROM registered_model_aliases WHERE name = ? AND alias = ?"
        return next((str(version) for (version,) in self._found(asked, name, alias)), None)

    def _found(self, asked: str, *given: str | int) -> list[Any]:
        if not self.database.exists():
            return []
        with _reading(self.database) as tables:
            return list(tables.execute(asked, given))


def _revision(database: Path) -> str | None:
    try:
        with _reading(database) as tables:
            return next((str(number) for (number,) in tables.execute("SELECT version_num FROM alembic_version")), None)
    except sqlite3.Error:  # no tables yet, or none of MLflow's: it will say so
        return None


@contextmanager
def _reading(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as tables:
        yield tables
