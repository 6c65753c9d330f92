"""Messages of processes beside the service, a watched stream and a run of the inbox: the same outputs, no server."""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.service.line.messages import of_record
from components.service.line.outputs import Outputs, without_servers
from components.service.settings import ServiceSettings

Tell = Callable[[Sequence[Mapping[str, Any]]], None]


def nobody(_: Sequence[Mapping[str, Any]]) -> None:
    """Where nobody listens."""


@contextmanager
def heard(settings: ServiceSettings, who: str, model: str) -> Iterator[Tell]:
    """What hands records on as messages of *model*; *who*, the process, has a queue of its own, which outlives it.

    Raises SettingsError, and StorageError where the same one runs already.
    """
    folder = Path(settings.spool) / "line" / hashlib.sha256(who.encode()).hexdigest()[:12]
    outputs = Outputs(without_servers(settings.line), folder, settings.line.most_mb)
    outputs.start()
    try:
        yield lambda records: outputs.append([of_record(record, model) for record in records])
    finally:
        outputs.stop(settings.drain_seconds)
