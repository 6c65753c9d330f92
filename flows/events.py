"""Drift events: sent only to a server that is there, and believed only once the server shows them."""

import time

from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.events.filters import EventFilter, EventIDFilter
from prefect.settings import PREFECT_API_URL

from components.monitoring.verdict import Verdict

EVENT = "loupe.drift"
PATIENCE = 30.0  # seconds an event may take to show


def send(verdict: Verdict) -> str | None:
    """Emit the event of a verdict; its id when the server has it, None when not: the next monitor run tries again."""
    if not PREFECT_API_URL.value():  # a temporary server would take the event and forget it
        return None
    with get_client(sync_client=True) as client:
        if client.api_healthcheck() is not None:
            return None
    event = emit_event(
        EVENT,
        resource={"prefect.resource.id": f"loupe.source.{verdict.model}.{verdict.source}"},
        payload={"verdict": verdict.id, "model": verdict.model, "source": verdict.source},
    )
    return str(event.id) if event and _arrived(event.id) else None


def _arrived(event_id: object) -> bool:
    wanted = EventFilter(id=EventIDFilter(id=[event_id]))  # type: ignore[list-item]
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with get_client(sync_client=True) as client:
            if client.read_events(filter=wanted, limit=1).events:
                return True
        time.sleep(1)
    return False
