"""``loupe calibrate``: another operating point for a run, a bundle or a registered model, without training."""

import logging
import tempfile
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from components.calibration.point import Costs, Defects, Estimate, cheapest, estimate, moved
from components.calibration.settings import CalibrationSettings
from components.core.artefacts import LOCK, atomic_dir, lock_of, locked, read_json, tree_hash, write_json
from components.core.errors import DataError, SettingsError
from components.core.places import check_folder
from components.core.progress import progress
from components.datasets.folds import ALL
from components.datasets.loading import read_split
from components.datasets.rows import DEFAULT, Naming
from components.decision.bundle import Bundle, Manifest
from components.decision.calibration import Calibration
from components.export.repoint import clone, repoint
from components.pictures.clips import decode
from components.pipeline.crossing import FOLDS
from components.pipeline.fit import rewrite_report
from components.pipeline.params import load_params
from components.registry.mlflow import Registry
from components.scorelog import table
from components.scorelog.labels import DEFECT, read_labels, records_of
from components.scorelog.shipper import image_key
from components.scorelog.whose import of_product
from components.storage import Store, open_store

log = logging.getLogger("loupe")
ORIGIN = "recalibrated_from"  # tag of a version that differs from another by its operating point only


@dataclass(frozen=True)
class PointRequest:
    """What the user asked ``loupe calibrate`` for: *alpha*, or *costs* with defects *labelled* or of the *store*."""

    target: Path
    alpha: float | None = None
    costs: Costs | None = None
    labelled: Path | None = None
    naming: Naming = DEFAULT
    store: str | None = None
    out: Path | None = None
    name: str | None = None  # in the registry, of the bundle that is the target


@dataclass(frozen=True)
class Moved:
    """Where the new operating point is, the calibrations before and after, and what both cost if that was asked."""

    place: Path
    old: Calibration
    new: Calibration
    costs: tuple[Estimate, Estimate, int] | None = None

    def lines(self) -> list[str]:
        """For people."""
        old, new = self.old, self.new
        kind = f"{new.confidence:.0%} interval" + (f", nominal ({new.nominal})" if new.nominal else "")
        said = [
            f"alpha {old.alpha:.4g} -> {new.alpha:.4g}, threshold {old.threshold:.6g} -> {new.threshold:.6g}",
            f"true false-alarm rate, {kind}: {new.interval[0]:.4f} to {new.interval[1]:.4f} "
            f"(before {old.interval[0]:.4f} to {old.interval[1]:.4f}), from {new.n} good pictures",
        ]
        if self.costs:
            before, after, many = self.costs
            said.append(f"estimated cost per picture {before.cost:.4g} -> {after.cost:.4g}, from {many} defects")
            said.append(
                f"defects called normal {before.missed} -> {after.missed} of {many}; true miss rate, "
                f"{new.confidence:.0%} interval: {after.misses[0]:.3f} to {after.misses[1]:.3f}"
            )
        return said


def costs_of(miss: float | None, alarm: float | None, defect_rate: float | None) -> Costs | None:
    """What the three options say together; None where none is given. Raises SettingsError."""
    if miss is None and alarm is None and defect_rate is None:
        return None
    if miss is None or alarm is None or defect_rate is None:
        raise SettingsError("give --cost-miss, --cost-alarm and --defect-rate together: the least cost needs all three")
    return Costs(miss, alarm, defect_rate)


def calibrate_any(request: PointRequest, params: Path) -> list[str]:
    """``set_point`` of a folder, or ``set_registered`` of a registered model; what to tell of it.

    *params* is only read where it is needed: for the store, and for the registry.
    """
    _require_one_way(request)
    if request.costs and not request.labelled:
        request = replace(request, store=load_params(params).store)
    if request.target.is_dir():
        done = set_point(request)
        return [*done.lines(), f"operating point in {done.place}"]
    if request.out or not params.exists():
        bundle_of(request.target)  # raises: it is no folder
    name = str(request.target)
    done, version = set_registered(request, name, Registry(load_params(params).registry))
    return [
        *done.lines(),
        f"{name}: version {version} is registered; `loupe promote {name} {version} --reason ...` serves it",
    ]


def _require_one_way(request: PointRequest) -> None:
    if (request.alpha is None) == (request.costs is None):
        raise SettingsError("give --alpha, or --cost-miss, --cost-alarm and --defect-rate to choose it by")
    if request.labelled and request.costs is None:
        raise SettingsError("--labelled goes with --cost-miss, --cost-alarm and --defect-rate")
    if request.alpha is not None:
        CalibrationSettings(request.alpha)  # a slip is told before anything is opened


def bundle_of(target: Path) -> Path:
    """The bundle of a run's folder, or the folder itself. Raises DataError."""
    if (target / "run.json").exists() and (target / "bundle" / "manifest.json").exists():
        return target / "bundle"
    if (target / "manifest.json").exists():
        return target
    raise DataError(f"{target}: is no run of `loupe fit` and no bundle; give one of these, or a registered name")


def set_point(request: PointRequest) -> Moved:
    """Write the new operating point in place, or to *out*; whatever stops it, the old one stays whole."""
    bundle, run = bundle_of(request.target), bundle_of(request.target) != request.target
    Bundle.open(bundle)  # what was changed by hand or by half is told and not built upon
    if (out := request.out) is None or out.resolve() == request.target.resolve():
        with _alone(request.target, run):
            return _written(request, bundle, run, request.target, True)
    check_folder(out, None, lambda folder: (folder / ("run.json" if run else "manifest.json")).exists(), "a copy of it")
    return _written(request, bundle, run, out, False)


def _alone(target: Path, run: bool) -> AbstractContextManager[None]:
    return locked(lock_of(target), wait=False, what=str(target)) if run else nullcontext()


def _written(request: PointRequest, bundle: Path, run: bool, out: Path, own: bool) -> Moved:
    values = read_json(bundle / "calibration.json")
    alpha, said = _chosen(request, bundle, values)
    new = moved(values, alpha)
    with atomic_dir(out) as scratch:
        clone(request.target, scratch, own, () if own or not run else ("work", "evaluation", "labelled", LOCK))
        repoint(scratch / "bundle" if run else scratch, new)
        if run:
            _restate_run(scratch, new, request.costs)
            rewrite_report(scratch)
    if run and own and (out / "evaluation").exists():
        log.warning("%s: evaluation/ tells of the old operating point; `loupe evaluate` writes it anew", out)
    return Moved(out, Calibration.of(values), Calibration.of(new), said)


def _restate_run(run: Path, values: dict[str, Any], costs: Costs | None) -> None:
    """calibration.json and run.json at the top of a run; its request goes on saying what fit was asked for."""
    write_json(run / "calibration.json", values)
    record = read_json(run / "run.json")
    record["outputs"] |= {name: tree_hash(run / name) for name in ("bundle", "calibration.json")}
    point = {"alpha": values["alpha"], "threshold": values["threshold"], "costs": costs}
    write_json(run / "run.json", record | {"operating_point": point})


def _chosen(request: PointRequest, bundle: Path, values: dict[str, Any]) -> tuple[float, Any]:
    _require_one_way(request)
    if request.costs is None:
        return float(request.alpha or 0), None
    defects = labelled(request, bundle) if request.labelled else reviewed(request, bundle)
    best = cheapest(values, defects, request.costs)
    return best.alpha, (estimate(values, values["alpha"], defects, request.costs), best, len(defects))


def split_of(bundle: Path) -> Path | None:
    """The folder with the split table of the run or of the pipeline's view that *bundle* lies in."""
    view = bundle.parent.parent
    beside = (bundle.parent, view / "split", view / FOLDS / ALL / "split")
    wanted = Manifest.read(bundle).data
    found = (folder / "split.parquet" for folder in beside)
    return next((path.parent for path in found if path.exists() and tree_hash(path) == wanted), None)


def labelled(request: PointRequest, bundle: Path) -> Defects:
    """Scores of the defective pictures below a folder. Raises DataError where they are those of the test split."""
    from components.evaluation.labelled import labelled_rows

    folder, split = Path(request.labelled or ""), split_of(bundle)
    if split is None:
        raise DataError(f"{bundle}: lies beside no split.parquet that says which pictures are its test's; give the run")
    rows, _ = labelled_rows(split, folder, request.naming)
    rows = rows[rows["label"] == "anomalous"]
    _require_untested(set(rows["sha256"]), split, folder)
    opened = Bundle.open(bundle)
    paths = [folder / name for name in rows["image_id"]]
    scores = [_score(opened, path, path.name) for path in progress(paths, "defects")]
    return Defects(np.array(scores, np.float64), list(rows["group"]))


def _require_untested(seen: set[str], split: Path, where: Any) -> None:
    known = read_split(split)
    both = seen & set(known[known["split"] == "test"]["sha256"])
    if both:
        raise DataError(
            f"{where}: {len(both)} of its defects are pictures of the test split, which measures and never chooses; "
            "give others"
        )


def reviewed(request: PointRequest, bundle: Path) -> Defects:
    """Scores of the pictures of this product that reviewers called a defect, each once: the last word counts."""
    if request.store is None:
        raise SettingsError("name the store of the score log with --params, or give --labelled")
    store, opened = open_store(request.store), Bundle.open(bundle)
    labels = {k: v for k, v in read_labels(store).items() if v["label"] == DEFECT}
    found: dict[str, tuple[float, str | None]] = {}
    for record in records_of(store, labels):
        if _concerns(record, opened, request.name) and record["sha256"] not in found:
            found[record["sha256"]] = _stored_score(store, record, opened), record["group"]
    if split := split_of(bundle):
        _require_untested(set(found), split, request.store)
    elif found:
        log.warning("%s: beside no split.parquet; that no reviewed picture is of its test split is not known", bundle)
    return Defects(np.array([score for score, _ in found.values()], np.float64), [group for _, group in found.values()])


def _concerns(record: table.Record, opened: Bundle, name: str | None) -> bool:
    """A store holds the records of several products."""
    return of_product(record, opened.version, name, opened.manifest.dataset)


def _stored_score(store: Store, record: table.Record, opened: Bundle) -> float:
    """The score in the record, if this model gave it, otherwise that of the stored picture."""
    if record["model_version"] == opened.version:
        return float(record["score"])
    return _score(opened, store.get(image_key(record["sha256"])), record["image_id"])


def _score(opened: Bundle, picture: Path | bytes, name: str) -> float:
    return float(opened.score([decode(picture, name, opened.decoding)])[0][0])


def set_registered(request: PointRequest, name: str, registry: Registry) -> tuple[Moved, str]:
    """A new version of the registered model *name*: its champion at another operating point, as challenger."""
    champion = registry.champion(name)
    if champion is None:
        raise SettingsError(f"{name}: is no folder, and no registered model with a champion")
    with tempfile.TemporaryDirectory() as scratch:
        bundle, target = registry.fetch(name, champion, Path(scratch) / "old"), Path(scratch) / "new"
        moved_to = set_point(PointRequest(bundle, **_asked(request), out=target, name=name))
        params = {"detector": Manifest.read(bundle).detector, "alpha": moved_to.new.alpha}
        tags = {**registry.tags(name, champion), ORIGIN: champion}
        tags.pop("verdict", None)  # that of a retraining is told by it, and has one version
        version = registry.register(name, target, params, registry.metrics(name, champion), tags)
    return moved_to, version


def _asked(request: PointRequest) -> dict[str, Any]:
    return {k: getattr(request, k) for k in ("alpha", "costs", "labelled", "naming", "store")}
