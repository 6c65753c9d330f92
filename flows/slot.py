"""One training at a time, by a slot that a killed flow gives back (docs/adr/0020-slots-of-killed-flows.md).

With work pools it is so many for each device instead (docs/adr/0050-several-machines.md).
"""

import logging
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.concurrency.sync import concurrency
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from components.core.artefacts import locked

log = logging.getLogger("loupe")
LIMIT = "gpu"
DEVICE_LEASE = 120.0  # the same for one of a device, which another run waits for
LEASE = 300.0  # seconds until a server takes back the slot of a killed flow; a living one renews it before
PATIENCE = 60.0  # seconds between two lines that say what is waited for


@contextmanager
def device_slot(device: str | None, lease: float = DEVICE_LEASE) -> Iterator[None]:
    """Hold one of the slots that the server has for *device*; none is needed where none is named."""
    if device is None:
        yield
        return
    name = device_limit(device)
    with ExitStack() as held:
        with _announced(f"waiting for a free slot of the limit {name}"):
            held.enter_context(concurrency(name, occupy=1, strict=True, lease_duration=lease))
        yield


def device_limit(device: str) -> str:
    """What the server calls the limit of *device*."""
    return f"device-{device}"


@contextmanager
def training_slot(lease: float = LEASE) -> Iterator[None]:
    """Hold the one slot for training: the limit ``gpu`` of the server, else the lock of this user's flows.

    A temporary server cannot have the slot: it ends with its flow, and then nobody takes back what a killed one held.
    """
    slot: AbstractContextManager[None]
    if server := PREFECT_API_URL.value():
        ensure_limit()
        slot, where = concurrency(LIMIT, occupy=1, strict=True, lease_duration=lease), f"the limit {LIMIT} of {server}"
    else:
        path = PREFECT_HOME.value() / f"{LIMIT}.lock"
        slot, where = locked(path), str(path)
    with ExitStack() as held:
        with _announced(f"waiting for the end of another training, which holds {where}"):
            held.enter_context(slot)
        yield


def ensure_limit() -> None:
    """One training at a time, unless the server already has a limit of this name."""
    with get_client(sync_client=True) as client:
        if LIMIT not in {found.name for found in client.read_global_concurrency_limits(limit=200)}:
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=1))


@contextmanager
def _announced(text: str) -> Iterator[None]:
    """Log *text* again and again while the block takes long."""
    done = threading.Event()

    def say() -> None:
        while not done.wait(PATIENCE):
            log.warning(text)

    threading.Thread(target=say, daemon=True).start()
    try:
        yield
    finally:
        done.set()
