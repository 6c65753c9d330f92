"""The monitor flow: new windows are judged, verdicts are stored, and what asks for retraining is announced."""

from pathlib import Path

from prefect import flow, get_run_logger, task

from components.core.progress import show_logs
from components.pipeline.monitoring import announce, judge_windows, watched_models
from components.pipeline.params import Params, load_params
from flows.events import send


@task(retries=2, retry_delay_seconds=[2, 10])
def look(params: Params, model: str) -> list[str]:
    return [f"{v.id}: {v.action}" for v in judge_windows(params, model)]


@task(retries=2, retry_delay_seconds=[2, 10])
def tell(params: Params) -> list[str]:
    return announce(params, send)


@flow(name="monitor", log_prints=False)
def monitor(params_file: Path = Path("params.yaml"), models: list[str] | None = None) -> list[str]:
    """Watch the champions of *models*; by default those of the pipeline's views and all others in the registry."""
    show_logs()
    params, logger = load_params(params_file), get_run_logger()
    said = [line for model in models or watched_models(params) for line in look(params, model)]
    for line in said:
        logger.info(line)
    for verdict in tell(params):
        logger.info("event of %s is with the server", verdict)
    return said
