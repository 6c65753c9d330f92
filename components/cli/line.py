"""Commands of the line: the service, the monitor, retraining, the registry, the inbox."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from components.cli.shared import DEFAULT_PARAMS, AsJson, ParamsFile, app, say
from components.core.checks import check_port
from components.core.errors import SettingsError
from components.core.places import bundle_in
from components.core.system import become


@app.command(epilog="Example: loupe serve elpv-mono --port 8000")
def serve(
    name: Annotated[str, typer.Argument(help="A bundle or run, or the registered name whose champion is served.")],
    host: Annotated[str | None, typer.Option(help="Default: service.host of the params file.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: service.port of the params file.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Run the scoring service, with its pages for people on /, until it is told to stop."""
    from dataclasses import replace

    from components.pipeline.params import params_or_defaults
    from components.pipeline.serving import desk_of
    from components.service.server import serve as run

    name, known = str(bundle_in(Path(name))), params_or_defaults(params)
    service = replace(known.service, host=host or known.service.host, port=port or known.service.port)
    run(name, service, known.registry, known.store, desk_of(known, name))


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

    check_port(port, "--port")
    workspace = Path(load_params(params).monitor.workspace)
    if not workspace.exists():
        raise SettingsError(f"{workspace}: not found; it is made by the first `loupe monitor`")
    command = dashboard_command(Path(sys.executable), workspace, host, port)
    say(f"http://{host}:{port}")
    become(command)


@app.command(epilog="Example: loupe retrain line-1-25f41524d13e-00003")
def retrain(
    verdict: Annotated[str, typer.Argument(help="The verdict's name, as `loupe monitor` prints it.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Retrain for a verdict: candidates, data version, challengers, gate; once per window."""
    from components.pipeline.params import load_params
    from components.pipeline.retraining import Retraining

    job = Retraining.of(load_params(params), verdict)  # a slip is told before Prefect is loaded
    from flows.retrain import retrain as run
    from flows.temporary import STAGES, ends_with_us
    from flows.terminal import without_tracebacks

    without_tracebacks()
    ends_with_us(STAGES)
    say(f"{run(verdict, params)}: see {job.folder}")


@app.command(epilog="Example: loupe models elpv-mono --json")
def models(
    name: Annotated[str | None, typer.Argument(help="Only this registered model.")] = None,
    as_json: AsJson = False,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """List registered models, their versions, aliases and decisions."""
    from components.pipeline.params import load_params
    from components.registry.overview import describe_models, overview_lines
    from components.registry.rows import reader

    found = describe_models(reader(load_params(params).registry), name)
    say(json.dumps(found, indent=1) if as_json else "\n".join(overview_lines(found)))


def _registry(params: Path) -> Any:
    from components.pipeline.params import load_params
    from components.registry.mlflow import Registry

    return Registry(load_params(params).registry)


@app.command(epilog="Example: loupe register runs/photos housings --data photos")
def register(
    run: Annotated[Path, typer.Argument(help="A folder that `loupe fit` or `loupe ensemble` wrote.")],
    name: Annotated[str, typer.Argument(help="The model's name: serve, monitor, promote and retrain go by it.")],
    data: Annotated[Path | None, typer.Option(help="The folder that fit was given, for retraining.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Put a run of `loupe fit` into the registry; the first version of a name becomes its champion."""
    from components.pipeline.params import load_params
    from components.pipeline.registering import register_fitted

    for line in register_fitted(load_params(params), run, name, data):
        say(line)


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


@app.command(epilog="Example: loupe watch bundle rtsp://camera/stream --source gate")
def watch(
    name: Annotated[str, typer.Argument(help="A bundle or run, or the registered name whose champion scores.")],
    place: Annotated[str, typer.Argument(help="A folder that fills, a video file, or a URL that PyAV can open.")],
    source: Annotated[str | None, typer.Option(help="The stream's name in the score log.")] = None,
    once: Annotated[bool, typer.Option(help="Of a folder only what is there already, every frame of it.")] = False,
    fps: Annotated[float | None, typer.Option(help="Of a video file, take so many frames a second.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Score a stream of frames; alarms go to the score log and the review page as clips."""
    from components.core.progress import show_logs
    from components.pipeline.params import params_or_defaults
    from components.pipeline.watching import watched

    show_logs()
    say(str(watched(params_or_defaults(params), str(bundle_in(Path(name))), place, source, once, fps)))


@app.command(epilog="Example: loupe frames 01.avi training/frames/01")
def frames(
    video: Annotated[Path, typer.Argument(help="A video file.")],
    out: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    fps: Annotated[float | None, typer.Option(help="Take so many frames a second.")] = None,
) -> None:
    """Unpack a video file into a folder of frames, as the adapters of clips read them."""
    from components.pipeline.watching import unpacked

    say(f"{unpacked(video, out, fps)} frames in {out}")


@app.command(epilog="Example: loupe inbox elpv-mono")
def inbox(
    name: Annotated[str, typer.Argument(help="The registered model whose champion scores.")],
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Score what lies below inbox/<source>/ of the object store, each file once; bad files are quarantined."""
    from components.pipeline.monitoring import champion_version
    from components.pipeline.params import load_params
    from flows.batch import batch_scoring
    from flows.temporary import ends_with_us
    from flows.terminal import without_tracebacks

    champion_version(load_params(params), name)  # before a server is started for the flow
    without_tracebacks()
    ends_with_us()
    say(f"{batch_scoring(params, name)} images scored")


@app.command(epilog="Example: loupe labels coco labelled --model elpv-mono")
def labels(
    form: Annotated[str, typer.Argument(help="coco, label-studio, voc (which CVAT reads) or masks.")],
    out: Annotated[Path, typer.Argument(help="A new or empty folder for pictures and labels.")],
    model: Annotated[str | None, typer.Option(help="Only pictures scored under this registered name.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Write what reviewers said and drew for labelling tools, or as masks to learn from."""
    from components.pipeline.labelling import export_labels
    from components.pipeline.params import load_params

    for line in export_labels(load_params(params).store, form, out, model):
        say(line)


@app.command(epilog="Example: loupe parts good-parts.json --since 2026-11-02")
def parts(
    out: Annotated[Path, typer.Argument(help="The JSON file for service.line.part.calibration.")],
    since: Annotated[str, typer.Option(help="The first day that counts, such as 2026-11-02; default: all.")] = "",
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Write p-values of good parts from the score log: alpha then holds for parts exactly, not by a bound."""
    from components.core.checks import check_day
    from components.pipeline.params import load_params
    from components.pipeline.parts import write_parts

    known = load_params(params)
    check_day(since, "--since")
    for line in write_parts(known.store, known.service.line.part.views, out, since):
        say(line)
