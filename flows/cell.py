"""One training as a run of a work pool. It is told names and hashes; all else is in the object store."""

from functools import partial

from prefect import flow, runtime

from components.core.progress import show_logs
from components.pipeline.cells import work
from components.pipeline.leases import Owner
from components.storage import open_store
from flows.slot import device_slot


@flow(name="cell", log_prints=False)
def cell(store: str, key: str, attempt: int = 1, device: str | None = None, lapse_seconds: float = 60.0) -> str:
    """Train, calibrate, export and evaluate what lies below *key*; returns the hash of the tree that came of it."""
    show_logs()
    owner = Owner(str(runtime.flow_run.id), attempt)
    return work(open_store(store), key, owner, lapse_seconds, partial(device_slot, device))
