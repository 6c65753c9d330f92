"""An ensemble of trained, calibrated detectors, in place of a training: nothing learns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from components.backbones.features import FeatureStore
from components.backbones.runtime import backbones
from components.core.artefacts import MEMBERS, VOLATILE, read_json, recorded, seconds_of, tree_hash, write_json
from components.core.cache import features_folder
from components.core.errors import BundleError, CalibrationError
from components.core.records import CHECK_COLUMNS, CHECK_TABLE, NUISANCE
from components.datasets.loading import read_decoding
from components.decision.calibration import Calibration, middle_and_spread
from components.detectors.ensemble import Ensemble, Scale, Scales, together
from components.training.data import CheckImages, StoredImages
from components.training.descriptors import FILE, descriptor
from components.training.evidence import of_folds, with_nuisances, write_evidence
from components.training.model import inputs_of, load_model, save_model
from components.training.select import SyntheticAUROC, auroc, finite
from components.training.settings import TrainSettings
from components.training.train import anomalous, check_images, file_images, normal_rows

WHAT = [name for name in CHECK_COLUMNS if name != "score"]  # of a row: which picture it is


@dataclass(frozen=True)
class Made:
    """What the stages left of one detector: the folders of its model and of its calibration."""

    model: Path
    calibration: Path


def combine(
    members: Sequence[Made],
    split: Path,
    synthetic: Path,
    data: Path,
    out: Path,
    settings: TrainSettings,
    seed: int,
    scales: Sequence[Scales] | None = None,
    folds: Sequence[Path] = (),
) -> Path:
    """Write to *out* of the ensemble of *members* what ``train`` writes of a detector.

    What the trainings of the members left of the very same pictures is put together; else the pictures are scored.
    *scales*: those of the members' calibrations unless given, as for models of one fold, which have none. Of *folds*,
    the ensembles of all folds, comes the evidence for an ensemble of members that have learned every picture. Raises
    BundleError where a calibration is of another model, CalibrationError where scores cannot be brought to one scale,
    SettingsError where *members* make no ensemble.
    """
    scales = scales or [scales_in(member) for member in members]
    made = together([load_model(member.model) for member in members], scales)
    inputs = {"split": split, "synthetic": synthetic}
    models = {f"member {number}": member.model / "model.safetensors" for number, member in enumerate(members)}
    with recorded(out, "train", {"detector": made.name, "settings": made.settings}, inputs | models, seed) as scratch:
        alike = _alike(members, {name: tree_hash(path) for name, path in inputs.items()}, seed)
        checked = of_folds(folds) if folds else _averaged(members, scales, made, split) if alike else None
        if checked is None:
            checked = _scored(made, split, synthetic, data, settings, seed)
        save_model(made, scratch)
        judged = {"phase": "average", "epoch": 0, "synthetic_auroc": _auroc(checked)}
        write_json(scratch / "history.json", [judged])
        write_evidence(checked, scratch)
        write_json(scratch / VOLATILE, {MEMBERS: sum(seconds_of(member.model) or 0.0 for member in members)})
        if alike and (described := _described(members, made, split, data)) is not None:
            np.save(scratch / FILE, described)
    return out


def _alike(members: Sequence[Made], inputs: Mapping[str, str], seed: int) -> bool:
    """Whether all *members* were trained and checked on the same pictures, those of *inputs*."""
    if not all((member.model / CHECK_TABLE).exists() for member in members):  # of an older version
        return False
    records = [read_json(member.model / "run.json") for member in members]
    return all(record["seed"] == seed and inputs.items() <= record["inputs"].items() for record in records)


def _averaged(members: Sequence[Made], scales: Sequence[Scales], made: Ensemble, split: Path) -> pd.DataFrame | None:
    """CHECK_COLUMNS of the ensemble: the mean of its members' standardised scores, which is its own.

    None where it is not: of a picture in squares, whose score is that of its worst square, or of unlike tables.
    """
    tables = [pd.read_parquet(member.model / CHECK_TABLE) for member in members]
    alike = all(table[WHAT].equals(tables[0][WHAT]) for table in tables)
    if made.rules(read_decoding(split)).tiles or not alike:
        return None
    scores = [(t["score"].to_numpy() - s.image.centre) / s.image.spread for t, s in zip(tables, scales, strict=True)]
    return tables[0].assign(score=finite(np.mean(scores, axis=0)))


def _scored(
    made: Ensemble, split: Path, synthetic: Path, data: Path, settings: TrainSettings, seed: int
) -> pd.DataFrame:
    """CHECK_COLUMNS of the ensemble, of every picture anew."""
    images, told = check_images(split, synthetic, data)
    kept = _kept(made, settings)
    check = CheckImages(StoredImages(images, FeatureStore(kept, settings.store_limit_gb)), anomalous(told))
    scores = SyntheticAUROC(check).scores(made)
    return with_nuisances(made, told.assign(score=scores), data, images.rules, seed, kept)


def _kept(made: Ensemble, settings: TrainSettings) -> Path | None:
    """Where features and graphs of its networks lie: of the weights of today, and a member may have others.

    None on a GPU too, to which what computes features would move a network away from the rest of its members.
    """
    todays = not torch.cuda.is_available() and all(part.is_todays() for part in backbones(made))
    return features_folder(settings.store) if todays else None


def _auroc(checked: pd.DataFrame) -> float:
    judged = checked[~checked["kind"].str.startswith(NUISANCE)]
    return auroc(anomalous(judged), judged["score"].to_numpy())


@torch.inference_mode()
def _described(members: Sequence[Made], made: Ensemble, split: Path, data: Path) -> np.ndarray | None:
    """Descriptors (N, D) of the good pictures, side by side of those that the members left; None where the ensemble
    has others: it describes no picture by its pixels where one of its members knows features."""
    files = [member.model / FILE for member in members]
    if not all(file.exists() for file in files):
        return None
    parts = [np.load(file) for file in files]
    one = file_images(data, normal_rows(split, "fit").head(1), read_decoding(split))
    width = descriptor(inputs_of(made, one.paths, one.rules)).shape[1]
    fits = len({len(part) for part in parts}) == 1 and sum(part.shape[1] for part in parts) == width
    return np.concatenate(parts, axis=1) if fits else None


def scales_of(known: Calibration, what: str) -> Scales:
    """How the values of a calibrated model lie on its calibrate normals: no test picture is looked at.

    Image scores: median, and median absolute deviation as a standard deviation. Maps: the median, and how far 99 % of a
    picture's pixels lie at most above it. One odd picture moves neither. Raises CalibrationError where nothing spreads.
    """
    middle, spread = middle_and_spread(np.asarray(known.table.scores, np.float64))
    return Scales(
        Scale(middle, _first(what, spread)),
        Scale(
            known.scale["0.5"], _first(what, *(known.scale[q] - known.scale["0.5"] for q in ("0.99", "0.999", "1.0")))
        ),
    )


def scales_in(member: Made) -> Scales:
    """``scales_of`` a member's own calibration. Raises BundleError where that is of another model."""
    known = Calibration.read(member.calibration / "calibration.json")
    if known.model not in (None, tree_hash(member.model / "model.safetensors")):
        raise BundleError(f"{member.calibration}: is of another model than {member.model}; fit it again")
    return scales_of(known, str(member.model))


def _first(what: str, *spreads: float) -> float:
    """The first that is more than none: of many equal values a narrow one is none."""
    for spread in spreads:
        if spread > 0:
            return spread
    raise CalibrationError(f"{what}: gives every good picture the same values; leave it out of the ensemble")
