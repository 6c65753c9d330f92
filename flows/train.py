"""The training flow: views x detectors through every stage, then leaderboard, registration and champion.

Tasks exchange paths. Retries are only where a disk or network is touched; one training runs at a time (``flows.slot``),
beside what comes behind the one before (``flows.ahead``), or each is a run of its own in a work pool (``flows.fan``).
"""

import functools
import logging
import re
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from components.core.artefacts import read_json
from components.core.errors import StageError
from components.core.progress import show_logs
from components.pipeline.cells import Cell
from components.pipeline.company import Time, company
from components.pipeline.following import followed
from components.pipeline.foresight import seconds
from components.pipeline.isolated import run_stage, standby
from components.pipeline.params import DEFAULT, Params, load_params
from components.pipeline.sizing import Asked, Sized, members_file, plans, reference_of, suited
from components.pipeline.stages import JOINT, Stages
from flows.ahead import Ahead
from flows.failures import noted
from flows.fan import fan_out
from flows.pages import checked, show_page
from flows.slot import training_slot
from flows.temporary import STAGES, ends_with_us
from flows.terminal import without_tracebacks

log = logging.getLogger("loupe")


def artifact_key(*parts: str) -> str:
    """A key as Prefect takes it: small letters, digits and dashes alone."""
    return re.sub("[^a-z0-9-]+", "-", "-".join(parts).lower())


@task(retries=2, retry_delay_seconds=[2, 10])
def bring_data(stages: Stages) -> Path:
    from components.datasets.versions import checkout

    return checkout(stages.data.name, stages.data_root)


@task
def check_data(stages: Stages) -> Path:
    stages.manifest()
    validated = stages.validate()
    told = checked(read_json(validated / "summary.json"), validated / "docs" / "index.html", _root(stages))
    create_markdown_artifact(told, key="validation", description=stages.data.name)
    return validated


@task
def prepare(stages: Stages) -> Path:
    for part in (*stages.members, stages):
        part.split()
    return stages.synthesise()


@task
def choose_sizes(stages: Stages, names: list[str]) -> list[Sized]:
    asked = stages.params.pipeline
    members = [name for ensemble in asked.listed for name in ensemble]
    return plans(stages, names, Asked(asked.size, asked.latency_ms, asked.minutes), members)


@task
def fit(stages: Stages, detector: str, params_file: Path) -> Path:
    """In a process that can be killed; it dies with the flow."""
    with training_slot(), followed(stages, detector) as curves:
        seconds, more = stages.params.train.stage_seconds * (1 + stages.folds), ("--curves", str(curves))
        run_stage("train", stages.view, detector, params_file, stages.data_root, seconds, more)
    return stages.of(detector) / "model"


@task
def combine(stages: Stages, ensemble: str) -> Path:
    return stages.combine(ensemble)


@task
def evaluate(stages: Stages, detector: str) -> Path | None:
    """None where the data set has no labelled test images: a plant with good images only is served all the same."""
    stages.trace(detector)
    stages.calibrate(detector)
    stages.export(detector)
    evaluation = stages.evaluate(detector) if stages.can_evaluate() else None
    show_pages(stages, detector, evaluation)
    return evaluation


@task
def found_made(stages: Stages, detector: str) -> Path | None:
    """The evaluation that a run of a pool has left; the page is written here, where the validation of the data is."""
    evaluation = stages.of(detector) / "evaluation"
    found = evaluation if evaluation.exists() else None
    show_pages(stages, detector, found)
    return found


def show_pages(stages: Stages, detector: str, evaluation: Path | None) -> None:
    """Report and gallery of a run, as artefacts that a browser opens."""
    names = stages.view, detector
    show_page(stages.report(detector), _root(stages), artifact_key("report", *names), f"report of {' '.join(names)}")
    if evaluation:
        gallery = evaluation / "gallery" / "index.html"
        show_page(gallery, _root(stages), artifact_key("gallery", *names), f"gallery of {' '.join(names)}")


def _root(stages: Stages) -> Path:
    return Path(stages.params.artefacts)


@task
def rank(evaluations: dict[str, Path], out: Path) -> Path:
    from components.evaluation.leaderboard import leaderboard, table

    create_table_artifact(table(evaluations), key="leaderboard")
    return leaderboard(evaluations, out)


@task(retries=2, retry_delay_seconds=[1, 5])
def register(params: Params, stages: Stages, detectors: list[str], reference: str) -> str:
    from components.registry.register import register_best

    return register_best(params.registry, stages.view, {name: stages.of(name) for name in detectors}, reference)


@flow(name="train", log_prints=False)
def train(
    params_file: Path = Path("params.yaml"),
    views: list[str] | None = None,
    detectors: list[str] | None = None,
    data_root: Path = Path("data"),
) -> Path:
    """Run every detector on every view; *views* and *detectors* default to ``pipeline`` in the params file.

    Ensembles whose members are among the detectors are put together behind them and are candidates like these; so are
    a detector's members where it is trained at several sizes (docs/sizes.md). Raises StageError at the end where a
    detector failed; the choice is then among the others.
    """
    params, chosen, names = asked_for(params_file, views, detectors)
    plans_: Iterable[Plan] = (_planned(Stages(params, view, data_root), names, params_file) for view in chosen)
    failed: dict[str, str] = {}
    if params.pipeline.pools:
        plans_ = list(plans_)
        failed = fan_out(params, [cell for plan in plans_ for cell in plan.cells()])
    evaluations, done = dict[str, Path](), 0
    with nullcontext() if params.pipeline.pools else standby(params_file):  # it loads while data is checked
        for plan in plans_:
            made, reference = _candidates(plan, failed)
            done += len(made)
            evaluations |= {f"{plan.stages.view}/{name}": found for name, found in made.items() if found}
            if made:
                get_run_logger().info("%s: %s", plan.stages.view, register(params, plan.stages, list(made), reference))
    if failed and not done:
        raise StageError(told(failed))
    out = rank(evaluations, Path(params.artefacts) / "leaderboard")
    if failed:
        others = f"the others are done (leaderboard in {out}; `loupe models` has the champions)"
        raise StageError(f"{len(failed)} of {len(failed) + done} failed, {others}: {told(failed)}")
    return out


@dataclass(frozen=True)
class Plan:
    """What is trained on one view; *file* has the settings."""

    stages: Stages
    found: list[Sized]
    file: Path

    def cells(self) -> list[Cell]:
        names = dict.fromkeys(name for sized in self.found for name in sized.members)
        return [Cell(self.stages, name, self.file) for name in names]


def _planned(stages: Stages, names: list[str], params_file: Path) -> Plan:
    """Data, split and synthetic anomalies of a view, and which detectors at which sizes."""
    for source in stages.sources:
        bring_data(source)
        check_data(source)
    prepare(stages)
    found = choose_sizes(stages, suited(stages, names))
    return Plan(stages, found, members_file(stages, found, params_file, stages.folder / "params.yaml"))


def told(failed: dict[str, str]) -> str:
    """The cells that failed, each with why and where its log is."""
    create_table_artifact([{"cell": name, "reason": why} for name, why in failed.items()], key="failed-cells")
    return "; ".join(f"{name}: {why}" for name, why in failed.items())


def asked_for(
    params_file: Path, views: list[str] | None, detectors: list[str] | None
) -> tuple[Params, list[str], list[str]]:
    """What a run is of, ``all`` as it is; what is wrong with the last view or detector is told before the first
    one is trained."""
    params = load_params(params_file)
    names, chosen = list(detectors or params.pipeline.detectors), views or list(params.pipeline.views)
    for view in chosen:
        params.view(view)
    for name in params.pipeline.expanded(names):
        params.settings_of(name)
    return params, chosen, names


def _candidates(plan: Plan, failed: dict[str, str]) -> tuple[dict[str, Path | None], str]:
    """Each candidate of a view with its evaluation, and which of them is the reference of the choice.

    A candidate of which a member *failed* is left out; one that fails here comes to these.
    """
    stages, asked = plan.stages, plan.stages.params.pipeline
    made: dict[str, Path | None] = {}
    of = {sized.detector: sized for sized in plan.found}
    allowed = Time(asked.total_minutes, foreseen=functools.cache(lambda detector: seconds(stages, of[detector])))
    whole = [s for s in plan.found if not any(f"{stages.view}/{name}" in failed for name in s.members)]
    with _trainings(plan, whole, allowed) as trainings:
        for sized in whole:
            if not allowed.room(sized.detector):
                log.warning("%s is left out of %s: no time is left of total_minutes", sized.detector, stages.view)
                continue
            with noted(failed, f"{stages.view}/{sized.name}"):
                for name in [name for name in sized.names if name not in made]:
                    made[name] = _made(plan, sized, name, trainings)
            allowed.done(sized.detector)
    trained = [sized for sized in plan.found if sized.name in made]
    ensembles = [JOINT.join(members) for members in asked.listed if made.keys() >= set(members)]
    if asked.grows and trained and (together := company(stages, trained, asked.latency_ms)):
        ensembles.append(together)
    for name in dict.fromkeys(ensembles):
        with noted(failed, f"{stages.view}/{name}"):
            combine(stages, name)
            made[name] = evaluate(stages, name)
    return made, reference_of(plan.found)


def _trainings(plan: Plan, whole: list[Sized], allowed: Time) -> Ahead:
    """Of all members in their order; the next may begin where the first detector that has it may."""
    of: dict[str, str] = {}
    for sized in whole:
        for name in sized.members:
            of.setdefault(name, sized.detector)
    ahead = plan.stages.params.pipeline.ahead
    return Ahead(list(of), lambda name: fit(plan.stages, name, plan.file), lambda n: ahead and allowed.room(of[n]))


def _made(plan: Plan, sized: Sized, name: str, trainings: Ahead) -> Path | None:
    """The evaluation of a detector, or of the ensemble of its sizes."""
    if name not in sized.members:
        combine(plan.stages, name)
    elif plan.stages.params.pipeline.pools:
        return found_made(plan.stages, name)
    else:
        trainings.trained(name)
    return evaluate(plan.stages, name)


def run_here(params_file: Path, views: list[str] | None, detectors: list[str] | None) -> str:
    """Run the flow in this process; returns leaderboard, champions with their figures, and how they are served."""
    from components.registry.mlflow import Registry
    from components.registry.overview import champion_lines

    show_logs()
    without_tracebacks()
    ends_with_us(STAGES)
    params, chosen, _ = asked_for(params_file, views, detectors)  # before a server is started for the flow
    out: Any = train(params_file, views, detectors)
    registry, more = Registry(params.registry), "" if params_file == DEFAULT else f" --params {params_file}"
    ends = [line for view in chosen for line in champion_lines(registry, view, more)]
    return "\n".join([(out / "leaderboard.md").read_text(), f"leaderboard in {out}", *ends])
