"""Bulk scoring as a deployment: one run for a whole manifest, never one per image; Dask spreads the shards."""

from pathlib import Path

from prefect import flow, get_run_logger, task

from components.core.progress import show_logs
from components.pipeline.monitoring import champion_bundle
from components.pipeline.params import load_params
from components.service.bulk import bulk as score_all


@task(retries=3, retry_delay_seconds=[10, 60, 300])
def score_shards(manifest: str, bundle: Path, out: str, group: str | None, scheduler: str | None) -> str:
    """Each attempt goes on with the shards that have no table yet."""
    return score_all(manifest, bundle, out, group, scheduler=scheduler)


@flow(name="bulk-scoring", log_prints=False)
def bulk(
    manifest: str,
    out: str,
    model: str | None = None,
    group: str | None = None,
    scheduler: str | None = None,
    params_file: Path = Path("params.yaml"),
) -> str:
    """Score what `loupe shards` wrote down with the champion of *model*, by default that of the first view."""
    show_logs()
    params = load_params(params_file)
    bundle = champion_bundle(params, model or params.pipeline.views[0])
    said = score_shards(manifest, bundle, out, group, scheduler)
    get_run_logger().info("%s; tables in %s", said, out)
    return said
