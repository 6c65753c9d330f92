"""The batch scoring flow: what lies in the inbox is scored with the champion, each file exactly once."""

from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact

from components.core.progress import show_logs
from components.pipeline.monitoring import open_champion
from components.pipeline.params import Params, load_params
from components.service.filing import PATH_BYTES, storable
from components.service.inbox import Processed, process, until_empty
from components.service.line.aside import heard
from components.storage import open_store


@task(retries=2, retry_delay_seconds=[2, 10])
def empty_inbox(params: Params, model: str, skip: frozenset[str]) -> Processed:
    store, champion = open_store(params.store), open_champion(params, model)
    with heard(params.service, "inbox", model) as tell:
        return process(store, champion, datetime.now(UTC), settings=params.inbox, skip=skip, name=model, tell=tell)


@flow(name="batch-scoring", log_prints=False)
def batch_scoring(params_file: Path = Path("params.yaml"), model: str | None = None) -> int:
    """Score the inbox until only files are left that wait for a later run; returns the number of images scored."""
    show_logs()
    params = load_params(params_file)
    name = model or params.pipeline.views[0]
    done = until_empty(lambda skip: empty_inbox(params, name, skip))
    if done.quarantined:
        rows = [{"file": storable(key, PATH_BYTES), "reason": reason} for key, reason in done.quarantined.items()]
        create_table_artifact(rows, key="quarantined")
    get_run_logger().info(
        "%d scored, %d quarantined, %d wait for a later run", done.scored, len(done.quarantined), done.waiting
    )
    return done.scored
