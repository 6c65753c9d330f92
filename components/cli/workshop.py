"""Commands of the workshop: data sets in, training, evaluation, scores."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from components.cli.shared import (
    DEFAULT_PARAMS,
    Defects,
    Goods,
    Groups,
    ParamsFile,
    Sets,
    app,
    declared,
    fit_help,
    folders_of,
    naming_of,
    say,
)
from components.core.checks import check_budget
from components.core.errors import SettingsError
from components.core.places import bundle_in
from components.core.runtime import Provider
from components.core.settings import convert
from components.detectors.catalogue import CATALOGUE, FIRST, require

data_app = typer.Typer(help="Bring data sets in and check them.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@app.command(epilog="Example: loupe init housings --source /mnt/usb/photos --alpha 0.02")
def init(
    name: Annotated[str, typer.Argument(help="What the product is called: data/NAME, the view, the model.")],
    source: Annotated[Path | None, typer.Option(help="The folder of pictures; it is copied.")] = None,
    adapter: Annotated[str, typer.Option(help="elpv, mtd or folder (train/good is enough).")] = "folder",
    alpha: Annotated[float, typer.Option(help="The share of good pictures that may alarm.")] = 0.05,
    good: Goods = None,
    defect: Defects = None,
    groups: Groups = None,
) -> None:
    """Make the current folder a project for a product of your own: data set, its pin, params.yaml."""
    from components.pipeline.project import init as begin

    more = declared(folders_of(good), defect, groups)
    say("\n  ".join(["next:", *begin(name, adapter, source, naming_of(good, defect, groups), more, alpha)]))


@data_app.command("add", epilog="Example: loupe data add tiles --adapter mtd --source /mnt/usb/MTD")
def data_add(
    name: Annotated[str, typer.Argument(help="The data set's name: data/NAME, pinned by data/NAME.dvc.")],
    adapter: Annotated[str, typer.Option(help="A name of `loupe data sets`; folder: MVTec layout.")] = "folder",
    source: Annotated[Path | None, typer.Option(help="The folder to copy; elpv and digits need none.")] = None,
    good: Goods = None,
    defect: Defects = None,
    groups: Groups = None,
) -> None:
    """Bring a data set in: copy it to data/NAME and pin its content with DVC."""
    from components.datasets.versions import bring_in

    naming = naming_of(good, defect, groups)
    out = bring_in(name, adapter, source, naming=naming)
    entry = json.dumps({"adapter": adapter, "name": name} | declared(folders_of(good), defect, groups))
    say(f"in {out}; name it in params.yaml under views and data, `{name}: {entry}`, to use it in the pipeline")


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


@data_app.command("sets", epilog="Example: loupe data sets visa")
def data_sets(name: Annotated[str | None, typer.Argument(help="Tell all of this one.")] = None) -> None:
    """The data sets that adapters read: licence; of one also source, layout, protocol and published counts."""
    from components.datasets.adapters import ADAPTERS, adapter

    if name is None:
        for known, kind in ADAPTERS.items():
            say(f"{known:14} {kind.licence}")
        return
    kind = adapter(name)
    counts = ", ".join(f"{n} {what}" for what, n in kind.counts.items())
    told = {"licence": kind.licence, "source": kind.source, "layout": kind.layout, "protocol": kind.protocol}
    for what, text in {**told, "counts": counts}.items():
        if text:
            say(f"{what + ':':9} {text}")


@app.command(epilog=fit_help())
def fit(
    data: Annotated[
        Path, typer.Option(help="A data set: MVTec layout (train/good is enough), or what --adapter reads.")
    ],
    out: Annotated[Path, typer.Option(help="The run's folder: model, calibration.json, bundle, run.json.")],
    detector: Annotated[
        str,
        typer.Argument(
            help="A name of `loupe detectors`, may be with its input size: patchcore@384.",
            autocompletion=lambda: [*CATALOGUE],
        ),
    ] = FIRST,
    adapter: Annotated[str, typer.Option(help="A name of `loupe data sets`.")] = "folder",
    group: Annotated[list[str] | None, typer.Option(help="Use only this group; may be repeated.")] = None,
    preset: Annotated[str | None, typer.Option(help="paper, long, cpu or tiny; default cpu.")] = None,
    seed: int = 0,
    alpha: Annotated[float | None, typer.Option(help="The false-alarm rate on good images; default 0.05.")] = None,
    setting: Sets = None,
    checkpoint_every: Annotated[float | None, typer.Option(help="Seconds between checkpoints; default 20.")] = None,
    good: Goods = None,
    defect: Defects = None,
    groups: Groups = None,
    roi: Annotated[
        Path | None, typer.Option(help="A mask image or JSON polygons; nothing outside is learned, scored or alarmed.")
    ] = None,
    tiles: Annotated[
        int | None,
        typer.Option(help="Squares across a picture's shorter side; default 1 where pictures are long."),
    ] = None,
    size: Annotated[
        str, typer.Option(help="Input size in pixels: auto (by the pictures), 384, or 256,384,512 averaged.")
    ] = "auto",
    latency_ms: Annotated[
        float | None,
        typer.Option(help="The most that a picture may take, measured here: larger sizes are left out."),
    ] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="The most that the fit may take, estimated: sizes are left out, or epochs are cut."),
    ] = None,
    params: Annotated[Path | None, typer.Option(help="A file like params.yaml; what is given here goes first.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done and how much memory it takes; train nothing.")
    ] = False,
) -> None:
    """Train on a folder, calibrate and export; killed half way, the same command resumes."""
    require(detector)  # a slip is told before pandas is loaded
    from components.pipeline.fit import FitRequest, fit_folder
    from components.pipeline.fit import dry_run as foreseen
    from components.pipeline.sections import sections_of

    sections, methods = sections_of(params, data.resolve().name, detector) if params else ({}, {})
    looked = {"roi": roi and str(roi), "tiles": tiles}
    of_data = declared(good, defect, groups) | {key: value for key, value in looked.items() if value is not None}
    overrides = _put_all(sections, setting or [], of_data)
    chosen, budget = tuple(group) if group else None, (latency_ms, minutes)
    known = (adapter, chosen, preset, seed, alpha, overrides, checkpoint_every, sections, methods, size, *budget)
    request = FitRequest(detector, data.resolve(), *known)
    if dry_run:
        say("\n".join(foreseen(request, out)))
        return
    _ended(fit_folder(request, out), data)


def _ended(run: Path, data: Path) -> None:
    """What a person wants to know when a run is there."""
    from components.pipeline.fit import ending

    for line in (*ending(run, data), f"run in {run}"):
        say(line)


def _put_all(sections: dict[str, dict[str, Any]], settings: list[str], of_data: dict[str, Any]) -> dict[str, Any]:
    """Put what --set and options of the data set say into *sections*; returns the rest: settings of the detector."""
    from components.pipeline.sections import assignment, put

    assigned = [assignment(text) for text in settings]
    overrides = {key: value for key, value in assigned if not put(sections, key, value)}
    if of_data:
        sections["data"] = {**sections.get("data", {}), **of_data}
    return overrides


@app.command(epilog="Example: loupe ensemble runs/patchcore runs/padim --data photos --out runs/both")
def ensemble(
    runs: Annotated[list[Path], typer.Argument(help="Folders that `loupe fit` wrote, of one data set and seed.")],
    data: Annotated[Path, typer.Option(help="The data set's folder, as given to fit.")],
    out: Annotated[Path, typer.Option(help="The ensemble's folder: model, calibration.json, bundle, run.json.")],
    alpha: Annotated[float | None, typer.Option(help="The false-alarm rate on good images; default the runs'.")] = None,
) -> None:
    """Put trained runs together as one model: mean standardised scores and maps, calibrated and exported as a whole."""
    from components.pipeline.ensemble import EnsembleRequest, ensemble_runs

    _ended(ensemble_runs(EnsembleRequest(tuple(runs), data.resolve(), alpha), out), data)


@app.command(epilog="Example: loupe compare runs/patchcore runs/fastflow --data photos --out compare.html")
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders that `loupe fit` or `loupe ensemble` wrote.")],
    out: Annotated[Path, typer.Option(help="The page, HTML.")] = Path("compare.html"),
    data: Annotated[Path | None, typer.Option(help="The folder of their data set, to draw pictures of.")] = None,
) -> None:
    """Put runs side by side: figures, differences on the same pictures with intervals, heat maps."""
    from components.report.compare import compare as compared

    say(f"comparison in {compared(runs, out, data)}")


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
    request = EvaluateRequest(run, *places, naming_of(good, defect, groups), *read, seed)
    written = evaluate_run(request, out or run / ("labelled" if labelled else "evaluation"))
    say((written / "metrics.json").read_text().rstrip())
    say(f"evaluation in {written}")


@app.command(epilog="Example: loupe score runs/photos/bundle today/*.png --out today.csv --overlays today-heat")
def score(
    bundle: Annotated[Path, typer.Argument(help="A bundle, or the run that it is in.")],
    out: Annotated[
        str,
        typer.Option(
            help="The table of scores, .parquet, .csv or .json; with --manifest a folder or s3://bucket/prefix."
        ),
    ],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Files, patterns, or folders that are searched as a whole.")
    ] = None,
    overlays: Annotated[Path | None, typer.Option(help="Also write each picture here with its heat map, PNG.")] = None,
    maps: Annotated[Path | None, typer.Option(help="Also write each heat map here, float32 .npy.")] = None,
    group: Annotated[str | None, typer.Option(help="What they show, if the model knows several groups.")] = None,
    cascade: Annotated[bool, typer.Option("--cascade", help="Let the edge graph answer where it is certain.")] = False,
    manifest: Annotated[str | None, typer.Option(help="Instead of images: shards that `loupe shards` wrote.")] = None,
    provider: Annotated[
        str | None,
        typer.Option(help="What computes: cpu, openvino, cuda, tensorrt; default as measured."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Of --manifest: processes; default one for each core.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Of --manifest: a Dask scheduler, tcp://host:8786.")] = None,
) -> None:
    """Score images with ONNX Runtime only: raw score, p-value, decision per image.

    A file that cannot be scored has its reason in the table's column problem; the exit status is then 3, and 1 when
    no file could be scored.
    """
    from components.decision.batch import score as score_images
    from components.service.bulk import bulk, wanted

    check_budget("--workers", workers)
    bundle, known = bundle_in(bundle), convert(provider, Provider | None, "--provider")
    others = {"--overlays": overlays, "--maps": maps, "--cascade": cascade, "--provider": known}
    if wanted(images, manifest, others, {"--workers": workers, "--scheduler": scheduler}):
        say(f"{bulk(str(manifest), bundle, out, group, workers, scheduler)}; tables in {out}")
        return
    say(f"scores in {score_images(bundle, images or [], Path(out), maps, group, cascade, overlays, known)}")


@app.command(epilog="Example: loupe shards s3://plant/2026 --out s3://plant/shards")
def shards(
    source: Annotated[str, typer.Argument(help="Where the pictures lie: a folder, or s3://bucket/prefix.")],
    out: Annotated[str, typer.Option(help="The manifest: a folder, or s3://bucket/prefix.")],
    per: Annotated[int, typer.Option(help="Pictures of a shard.")] = 1000,
) -> None:
    """Write down which pictures `loupe score --manifest` will score, in shards."""
    from components.service.bulk import write_manifest

    made = write_manifest(source, out, per)
    say(f"{made.images} pictures in {made.shards} shards: {out}")


@app.command(epilog="Example: loupe calibrate runs/photos --alpha 0.02")
def calibrate(
    target: Annotated[str, typer.Argument(help="A run of `loupe fit`, a bundle, or a registered name.")],
    alpha: Annotated[float | None, typer.Option(help="The false-alarm rate on good images.")] = None,
    cost_miss: Annotated[float | None, typer.Option(help="Instead: what a missed defect costs.")] = None,
    cost_alarm: Annotated[float | None, typer.Option(help="What a false alarm costs, in the same unit.")] = None,
    defect_rate: Annotated[float | None, typer.Option(help="The share of defective pictures on the line.")] = None,
    labelled: Annotated[
        Path | None, typer.Option(help="Defects to choose by: good/ and <defect>/; default: the reviewed ones.")
    ] = None,
    good: Goods = None,
    defect: Defects = None,
    groups: Groups = None,
    out: Annotated[Path | None, typer.Option(help="Write a copy here; default: in place.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Set another operating point, without training: by a false-alarm rate, or by what mistakes cost."""
    from components.pipeline.operating import PointRequest, calibrate_any, costs_of

    costs = costs_of(cost_miss, cost_alarm, defect_rate)
    naming = naming_of(good, defect, groups)
    for line in calibrate_any(PointRequest(Path(target), alpha, costs, labelled, naming, None, out), params):
        say(line)


@app.command(epilog="Example: loupe pipeline --views elpv-mono --detectors patchcore")
def pipeline(
    detectors: Annotated[list[str] | None, typer.Option("--detectors", help="May be repeated; or all.")] = None,
    views: Annotated[list[str] | None, typer.Option("--views", "--data", help="May be repeated.")] = None,
    params: ParamsFile = DEFAULT_PARAMS,
) -> None:
    """Run the Prefect training flow in this process."""
    from flows.train import run_here

    say(run_here(params, views, detectors))
