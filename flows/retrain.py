"""The retrain flow: from a drift verdict to a decision, once per window.

Training runs in a process of its own that is killed when it takes too long or when this flow ends.
"""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact

from components.core.errors import DataError, StageError
from components.core.progress import show_logs
from components.pipeline.following import followed
from components.pipeline.isolated import run_stage, standby
from components.pipeline.params import load_params
from components.pipeline.retraining import Retrained, Retraining
from components.pipeline.sizing import Sized
from components.registry.gate import Gate
from flows.failures import noted
from flows.slot import training_slot


@task(retries=2, retry_delay_seconds=[5, 20])
def gather(job: Retraining) -> Path:
    return job.gather()


@task
def new_version(job: Retraining) -> Path:
    return job.write_version()


@task
def prepare(job: Retraining) -> Path:
    stages = job.stages
    for step in (stages.manifest, stages.validate, stages.split):
        step()
    return stages.synthesise()


@task
def choose_sizes(job: Retraining) -> list[Sized]:
    return job.plan()


@task
def challenge(job: Retraining, detector: str) -> Path:
    seconds = job.params.train.stage_seconds
    with training_slot(), followed(job.stages, detector) as curves:
        more = ("--curves", str(curves))
        run_stage("train", job.live, detector, job.derived, job.data_root, seconds, more)
    return finish(job, detector)


@task
def combine(job: Retraining, ensemble: str) -> Path:
    job.stages.combine(ensemble)
    return finish(job, ensemble)


def finish(job: Retraining, detector: str) -> Path:
    stages = job.stages
    stages.trace(detector)
    stages.calibrate(detector)
    if stages.can_evaluate():
        stages.evaluate(detector)
    return stages.export(detector)


@task
def compare(job: Retraining, challengers: list[Sized], names: list[str]) -> tuple[str, Gate]:
    return job.compare(challengers, names)


@task(retries=2, retry_delay_seconds=[2, 10])
def conclude(job: Retraining, detector: str, outcome: Gate) -> Retrained:
    return job.conclude(detector, outcome, datetime.now(UTC))


@flow(name="retrain", log_prints=False)
def retrain(verdict: str, params_file: Path = Path("params.yaml"), data_root: Path = Path("data")) -> str:
    """Retrain for one verdict; a second request for the same window returns the first one's outcome."""
    show_logs()
    job = Retraining.of(load_params(params_file), verdict, data_root)
    with job.alone():
        outcome = job.decided()
        if outcome is None:
            job.claim(datetime.now(UTC))
            outcome = _refused(job) or _challenged(job)
    said = "\n".join(f"- {reason}" for reason in outcome.reasons)
    create_markdown_artifact(f"**{outcome.action}**\n\n{said}", key="retrain-decision", description=verdict)
    get_run_logger().info("%s: %s", verdict, outcome.action)
    return outcome.action


def _refused(job: Retraining) -> Retrained | None:
    """The outcome where nothing should be trained: spent budget, too few candidates, or a pool refused before."""
    at = datetime.now(UTC)
    reason = job.hindrance(at)
    if reason is None:
        try:
            gather(job)
            reason = job.refused_before()
        except DataError as error:
            reason = str(error)
    return job.refuse(reason, at) if reason else None


def _challenged(job: Retraining) -> Retrained:
    for name in job.params.retrain.detectors:
        job.params.settings_of(name)
    new_version(job)
    with standby(job.derived):  # it loads while data is checked
        prepare(job)
        challengers, made, failed = choose_sizes(job), list[str](), dict[str, str]()
        for sized in challengers:
            with noted(failed, sized.name):
                for name in [name for name in sized.names if name not in made]:
                    challenge(job, name) if name in sized.members else combine(job, name)
                    made.append(name)
    if not made:
        raise StageError("; ".join(failed.values()))
    trained = [sized for sized in challengers if sized.name in made]
    if trained and (together := job.company(trained)):
        with noted(failed, together):
            combine(job, together)
            made.append(together)
    best, outcome = compare(job, challengers, made)
    lost = tuple(f"left out: {name}, which failed: {why}" for name, why in failed.items())
    return conclude(job, best, replace(outcome, reasons=outcome.reasons + lost))
