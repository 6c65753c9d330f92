"""The command line: a thin Typer app over the components. Heavy libraries are loaded by the command that needs them."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from components.core.boundary import DEBUG, boundary
from components.core.errors import SettingsError
from components.core.progress import show_logs

app = typer.Typer(
    help="Visual inspection without defect labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="Bring data sets in and check them.", no_args_is_help=True)
app.add_typer(data_app, name="data")

ParamsFile = Annotated[Path, typer.Option("--params", help="The file with every knob.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a machine to read.")]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", help="key=value: a setting of the detector, or of params.yaml such as validation.max_side."),
]
Goods = Annotated[list[str] | None, typer.Option("--good", help="A folder of good pictures of this name, too.")]
Defects = Annotated[list[str] | None, typer.Option("--defect", help="A folder of this name holds defects.")]
Groups = Annotated[str | None, typer.Option("--groups", help="folder: the first folder below good is the group.")]
DEFAULT_PARAMS = Path("params.yaml")


def main() -> None:
    """Run a command; what fails is one sentence on standard error and an exit status: docs/operating.md."""
    show_logs()
    with boundary():
        app()


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback where a command fails.")] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ[DEBUG] = "1"


def say(text: str) -> None:
    """Print a line of the command's own output; bytes of a file name that are no UTF-8 as escapes."""
    typer.echo(text.encode("utf-8", "backslashreplace").decode())


@app.command(epilog="Example: loupe doctor")
def doctor(as_json: AsJson = False) -> None:
    """Check Python, torch, device, weights, disk and tools; say what to do about each problem."""
    from components.pipeline.doctor import examine

    findings = examine()
    if as_json:
        say(json.dumps(findings, indent=1))
    else:
        for finding in findings:
            advice = "" if finding["ok"] else f" -> {finding['advice']}"
            say(f"{'ok ' if finding['ok'] else 'BAD'} {finding['what']}: {finding['found']}{advice}")
    if not all(finding["ok"] for finding in findings):
        raise typer.Exit(1)


@app.command(epilog="Example: loupe cache --clear")
def cache(
    as_json: AsJson = False,
    clear: Annotated[
        bool, typer.Option("--clear", help="Remove the features; a later training computes them.")
    ] = False,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Say where computed features are kept, how much they take and how much they may."""
    from components.core import cache as kept
    from components.pipeline.params import train_settings

    train = train_settings(params)
    folder = kept.features_folder(train.store)
    if folder is None:
        raise SettingsError(f"{params}: train.store is null, so features are not kept")
    if clear:
        kept.clear(folder)
    found = {"folder": str(folder), **kept.contents(folder), "limit_gb": train.store_limit_gb}
    size = f"{found['entries']} entries, {found['bytes'] / 1e9:.2f} GB of at most {train.store_limit_gb:g} GB"
    say(json.dumps(found, indent=1) if as_json else f"{folder}: {size}")


@app.command(epilog="Example: loupe detectors --json")
def detectors(as_json: AsJson = False) -> None:
    """List the catalogue: name, paper, family, needs, presets."""
    from components.detectors.catalogue import CATALOGUE, describe

    entries = [describe(name) for name in CATALOGUE]
    if as_json:
        say(json.dumps(entries, indent=1))
        return
    for entry in entries:
        say(f"{entry['name']:12} {entry['family']:18} {entry['venue']} {entry['year']}  {entry['paper']}")


@app.command("new-detector", epilog="Example: loupe new-detector spade")
def new_detector(name: str) -> None:
    """Begin a method of your own in this checkout: its file, catalogue line, test and page (CONTRIBUTING.md)."""
    from datetime import UTC, datetime

    from components.detectors.skeleton import new_detector as write

    for path in write(name, Path(), datetime.now(UTC).year):
        say(str(path))
    say(f"next: make golden NAME={name}, then fill in; CONTRIBUTING.md says how")


@data_app.command("add", epilog="Example: loupe data add tiles --adapter mtd --source /mnt/usb/MTD")
def data_add(
    name: Annotated[str, typer.Argument(help="The data set's name: data/NAME, pinned by data/NAME.dvc.")],
    adapter: Annotated[str, typer.Option(help="elpv, mtd or folder (MVTec layout).")] = "folder",
    source: Annotated[Path | None, typer.Option(help="The folder to copy; elpv needs none.")] = None,
    good: Goods = None,
    defect: Defects = None,
    groups: Groups = None,
) -> None:
    """Bring a data set in: copy it to data/NAME and pin its content with DVC."""
    from components.datasets.versions import bring_in

    naming = _naming(good, defect, groups)
    out = bring_in(name, adapter, source, naming=naming)
    entry = json.dumps({"adapter": adapter, "name": name} | _declared(good, defect, groups))
    say(f"in {out}; name it in params.yaml under views and data, `{name}: {entry}`, to use it in the pipeline")


def _naming(good: list[str] | None, defect: list[str] | None, groups: str | None) -> Any:
    from components.core.settings import build
    from components.datasets.rows import Naming

    return build(Naming, _declared(good, defect, groups), "data")


def _declared(good: list[str] | None, defect: list[str] | None, groups: str | None) -> dict[str, Any]:
    values = {"good": ["good", *good] if good else None, "defect": defect, "groups": groups}
    return {key: value for key, value in values.items() if value}


@data_app.command("check", epilog="Example: loupe data check elpv")
def data_check(name: str, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Validate a data set of params.yaml and print what was found."""
    from components.datasets.versions import checkout
    from components.pipeline.params import load_params
    from components.pipeline.stages import Stages

    known = load_params(params)
    view = next((v for v, item in known.views.items() if item.data == name), None)
    if view is None:
        raise SettingsError(f"{params}: no view uses the data set {name}; add one under views")
    stages = Stages(known, view)
    checkout(stages.data.name)
    stages.manifest()
    out = stages.validate()
    say((out / "summary.json").read_text().rstrip())
    say(f"report in {out / 'docs' / 'index.html'}")


@app.command(epilog="Example: loupe fit patchcore --data photos --out runs/photos --set bank_size=5000")
def fit(
    detector: str,
    data: Annotated[
        Path, typer.Option(help="A data set: MVTec layout (train/good is enough), or what --adapter reads.")
    ],
    out: Annotated[Path, typer.Option(help="The run's folder: model, calibration.json, bundle, run.json.")],
    adapter: Annotated[str, typer.Option(help="elpv, mtd or folder.")] = "folder",
    group: Annotated[list[str] | None, typer.Option(help="Use only this group; may be repeated.")] = None,
    preset: Annotated[str | None, typer.Option(help="paper, cpu or tiny; default cpu.")] = None,
    seed: int = 0,
    alpha: Annotated[float | None, typer.Option(help="The false-alarm rate on good images; default 0.05.")] = None,
    setting: Sets = None,
    checkpoint_every: Annotated[float | None, typer.Option(help="Seconds between checkpoints; default 20.")] = None,
    good: Goods = None,
    defect: Defects = None,
    groups: Groups = None,
    params: Annotated[Path | None, typer.Option(help="A file like params.yaml; what is given here goes first.")] = None,
) -> None:
    """Train on a folder, calibrate and export; killed half way, the same command resumes."""
    from components.pipeline.fit import FitRequest, fit_folder
    from components.pipeline.sections import assignment, put, sections_of

    sections, overrides = sections_of(params, data.resolve().name, detector) if params else ({}, {})
    for key, value in (assignment(text) for text in setting or []):
        if not put(sections, key, value):
            overrides[key] = value
    if declared := _declared(good, defect, groups):
        sections["data"] = {**sections.get("data", {}), **declared}
    chosen = tuple(group) if group else None
    request = FitRequest(
        detector, data.resolve(), adapter, chosen, preset, seed, alpha, overrides, checkpoint_every, sections
    )
    say(f"run in {fit_folder(request, out)}")


@app.command(epilog="Example: loupe evaluate runs/photos --data photos")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A folder that `loupe fit` wrote.")],
    data: Annotated[Path | None, typer.Option(help="The data set's folder, as given to fit.")] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="Instead: any folder with test/good and test/<defect>, or good and <defect>.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Where to; default RUN/evaluation, or RUN/labelled.")] = None,
    good: Goods = None,
    defect: Defects = None,
    groups: Groups = None,
    masks: Annotated[str, typer.Option(help="What masks of --labelled mark: auto, marked or inverted.")] = "auto",
    mask_turn: Annotated[str, typer.Option(help="How they are turned: auto, stored or shown.")] = "auto",
    seed: int = 0,
) -> None:
    """Score the test split, or other labelled pictures: metrics.json, scores.parquet, curves, gallery."""
    from components.pipeline.fit import EvaluateRequest, evaluate_run, mask_options

    read = mask_options(masks, mask_turn)
    places = (data and data.resolve(), labelled and labelled.resolve())
    request = EvaluateRequest(run, *places, _naming(good, defect, groups), *read, seed)
    written = evaluate_run(request, out or run / ("labelled" if labelled else "evaluation"))
    say((written / "metrics.json").read_text().rstrip())
    say(f"evaluation in {written}")


@app.command(epilog="Example: loupe score runs/photos/bundle today/*.png --out today.parquet")
def score(
    bundle: Path,
    images: Annotated[list[Path], typer.Argument(help="Files, or folders that are searched with all below them.")],
    out: Annotated[Path, typer.Option(help="The table of scores, parquet.")],
    maps: Annotated[Path | None, typer.Option(help="Also write each heat map here, float32 .npy.")] = None,
    group: Annotated[str | None, typer.Option(help="What they show, if the model knows several groups.")] = None,
    cascade: Annotated[bool, typer.Option("--cascade", help="Let the edge graph answer where it is certain.")] = False,
) -> None:
    """Score images with ONNX Runtime only: raw score, p-value, decision per image.

    A file that cannot be scored has its reason in the table's column problem; the exit status is then 3, and 1 when
    no file could be scored.
    """
    from components.decision.batch import score as score_images

    say(f"scores in {score_images(bundle, images, out, maps, group, cascade)}")


@app.command(epilog="Example: loupe pipeline --views elpv-mono --detectors patchcore")
def pipeline(
    detectors: Annotated[list[str] | None, typer.Option("--detectors", help="May be repeated.")] = None,
    views: Annotated[list[str] | None, typer.Option("--views", "--data", help="May be repeated.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Run the Prefect training flow in this process."""
    from flows.train import run_here

    say(run_here(params, views, detectors))


@app.command(epilog="Example: loupe serve elpv-mono --port 8000")
def serve(
    name: Annotated[str, typer.Argument(help="A bundle folder, or the registered name whose champion is served.")],
    host: Annotated[str | None, typer.Option(help="Default: service.host of the params file.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: service.port of the params file.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Run the scoring service, with the review page on /review, until it is told to stop."""
    from dataclasses import replace

    from components.pipeline.params import load_params
    from components.service.server import serve as run

    known = load_params(params)
    service = replace(known.service, host=host or known.service.host, port=port or known.service.port)
    run(name, service, known.registry, known.store)


@app.command(epilog="Example: loupe monitor elpv-mono")
def monitor(
    name: Annotated[str, typer.Argument(help="The registered model.")],
    as_json: AsJson = False,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Judge the score log's new windows; verdicts are stored, the monitor flow announces those that ask to retrain."""
    from components.core.settings import plain
    from components.pipeline.monitoring import judge_windows
    from components.pipeline.params import load_params

    verdicts = judge_windows(load_params(params), name)
    if as_json:
        say(json.dumps(plain(verdicts), indent=1))
        return
    for verdict in verdicts:
        say(f"{verdict.action:8} {verdict.id}: {verdict.reasons[0]}; report: {verdict.evidence}")
    say(f"{len(verdicts)} new windows judged")


@app.command(epilog="Example: loupe dashboard --port 8001")
def dashboard(host: str = "127.0.0.1", port: int = 8001, params: ParamsFile = DEFAULT_PARAMS) -> None:
    """Open Evidently's web application on the monitor's workspace, until it is told to stop."""
    from components.monitoring.evidently import dashboard_command
    from components.pipeline.params import load_params

    workspace = Path(load_params(params).monitor.workspace)
    if not workspace.exists():
        raise SettingsError(f"{workspace}: not found; it is made by the first `loupe monitor`")
    command = dashboard_command(Path(sys.executable), workspace, host, port)
    say(f"http://{host}:{port}")
    os.execv(command[0], command)


@app.command(epilog="Example: loupe retrain line-1-25f41524d13e-00003")
def retrain(
    verdict: Annotated[str, typer.Argument(help="The verdict's name, as `loupe monitor` prints it.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Retrain for a verdict: candidates, data version, challengers, gate; once per window."""
    from components.pipeline.params import load_params
    from components.pipeline.retraining import Retraining
    from flows.retrain import retrain as run
    from flows.terminal import without_tracebacks

    without_tracebacks()
    job = Retraining.of(load_params(params), verdict)
    say(f"{run(verdict, params)}: see {job.folder}")


@app.command(epilog="Example: loupe models elpv-mono --json")
def models(
    name: Annotated[str | None, typer.Argument(help="Only this registered model.")] = None,
    as_json: AsJson = False,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """List registered models, their versions, aliases and decisions."""
    from components.registry.overview import describe_models, overview_lines

    found = describe_models(_registry(params), name)
    say(json.dumps(found, indent=1) if as_json else "\n".join(overview_lines(found)))


def _registry(params: Path) -> Any:
    from components.pipeline.params import load_params
    from components.registry.mlflow import Registry

    return Registry(load_params(params).registry)


@app.command(epilog="Example: loupe promote elpv-mono 3 --reason 'approved by quality'")
def promote(
    name: str,
    version: str,
    reason: Annotated[str, typer.Option(help="Why; kept in the decision record.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Make a version champion, past the gate, by hand; services reload within seconds."""
    decision = _registry(params).promote(name, version, (f"by hand: {reason}",), {})
    say(f"{name}: version {decision.version} is champion, before it {decision.previous}")


@app.command(epilog="Example: loupe rollback elpv-mono --reason 'too many false alarms'")
def rollback(
    name: str,
    reason: Annotated[str, typer.Option(help="Why; kept in the decision record.")] = "",
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Restore the champion before the present one; services reload within seconds."""
    decision = _registry(params).rollback(name, (f"by hand: {reason or 'no reason given'}",))
    say(f"{name}: version {decision.version} is champion again, before it {decision.previous}")


@app.command(epilog="Example: loupe inbox elpv-mono")
def inbox(
    name: Annotated[str, typer.Argument(help="The registered model whose champion scores.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Score what lies below inbox/<source>/ of the object store, each file once; bad files are quarantined."""
    from flows.batch import batch_scoring
    from flows.terminal import without_tracebacks

    without_tracebacks()
    say(f"{batch_scoring(params, name)} images scored")


@app.command(context_settings={"allow_interspersed_args": False}, epilog="Example: loupe bench fit mtd/patchcore")
def bench(question: Annotated[list[str] | None, typer.Argument(metavar="NAME [WORD]")] = None) -> None:
    """List the benchmarks, or run the one of this name with the words behind it: NAME --help tells which."""
    sys.path.insert(0, str(Path().resolve()))  # the folder of the benchmarks is no part of the installed program
    try:
        from benchmarks.questions import run
    except ModuleNotFoundError as error:
        raise SettingsError("benchmarks need a checkout of Loupe; run this in the folder of its README") from error
    run(question or [])


if __name__ == "__main__":
    main()
