"""The monitor flow: new windows are judged, verdicts are stored, and what asks for retraining is announced."""

from pathlib import Path

from prefect import flow, get_run_logger, task

from components.core.errors import LoupeError
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
    said, failed = list[str](), list[LoupeError]()
    for model in models or watched_models(params):
        try:
            said += look(params, model)
        except LoupeError as error:  # the others are judged all the same, and what they ask for is told
            logger.error("%s: %s", model, error)
            failed.append(error)
    for line in said:
        logger.info(line)
    for verdict in tell(params):
        logger.info("event of %s is with the server", verdict)
    if failed:
        raise failed[0]
    return said
