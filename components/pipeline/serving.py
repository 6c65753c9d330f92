"""``loupe serve``: the service, and what its pages need of the rooms that it cannot see."""

from collections.abc import Mapping, Sequence
from typing import Any

from components.core.settings import plain
from components.monitoring.monitor import verdicts
from components.pipeline.params import Params
from components.service.desk import Desk
from components.storage import open_store


def desk_of(params: Params) -> Desk:
    """The monitor's verdicts for the service's pages."""
    store = open_store(params.store)

    def of_source(source: str, version: str) -> Sequence[Mapping[str, Any]]:
        return [plain(verdict) for verdict in verdicts(store, source, version)]

    return Desk(of_source)
