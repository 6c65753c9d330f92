"""The batch scoring flow: what lies in the inbox is scored with the champion, each file exactly once."""

from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact

from components.monitoring.operation import champion_bundle
from components.params import Params, load_params
from components.progress import show_logs
from components.scoring.bundle import Bundle
from components.scoring.inbox import Processed, process
from components.storage import open_store


@task(retries=2, retry_delay_seconds=[2, 10])
def empty_inbox(params: Params, model: str) -> Processed:
    return process(open_store(params.store), Bundle.open(champion_bundle(params, model)), datetime.now(UTC))


@flow(name="batch-scoring", log_prints=False)
def batch_scoring(params_file: Path = Path("params.yaml"), model: str | None = None) -> int:
    """Score the inbox until it is empty; returns the number of images scored."""
    show_logs()
    params, total = load_params(params_file), 0
    bad: dict[str, str] = {}
    while (done := empty_inbox(params, model or params.pipeline.views[0])) != Processed(0, {}):
        total, bad = total + done.scored, bad | done.quarantined
    if bad:
        create_table_artifact([{"file": k, "reason": v} for k, v in bad.items()], key="quarantined")
    get_run_logger().info("%d scored, %d quarantined", total, len(bad))
    return total
