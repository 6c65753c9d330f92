"""An ensemble of trained, calibrated detectors, in place of a training: nothing learns."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from components.core.artefacts import recorded, tree_hash, write_json
from components.core.errors import BundleError, CalibrationError
from components.decision.calibration import Calibration, middle_and_spread
from components.detectors.ensemble import Scale, Scales, together
from components.training.evidence import with_nuisances, write_evidence
from components.training.model import load_model, save_model, score_files
from components.training.select import auroc
from components.training.train import anomalous, check_images


@dataclass(frozen=True)
class Made:
    """What the stages left of one detector: the folders of its model and of its calibration."""

    model: Path
    calibration: Path


def combine(members: Sequence[Made], split: Path, synthetic: Path, data: Path, out: Path, seed: int) -> Path:
    """Write to *out* of the ensemble of *members* what ``train`` writes of a detector.

    Raises BundleError where a calibration is of another model, CalibrationError where scores cannot be brought to one
    scale, SettingsError where *members* make no ensemble.
    """
    made = together([load_model(member.model) for member in members], [_scales(member) for member in members])
    inputs = {"split": split, "synthetic": synthetic}
    inputs |= {f"member {number}": member.model / "model.safetensors" for number, member in enumerate(members)}
    images, told = check_images(split, synthetic, data)
    with recorded(out, "train", {"detector": made.name, "settings": made.settings}, inputs, seed) as scratch:
        # From the files, and not from the store: it knows features of the weights of today, not of a member's.
        scored = score_files(made, images.paths, rules=images.rules)
        scores = np.concatenate([found for found, _ in scored]).astype(np.float64)
        save_model(made, scratch)
        judged = {"phase": "average", "epoch": 0, "synthetic_auroc": auroc(anomalous(told), scores)}
        write_json(scratch / "history.json", [judged])
        write_evidence(with_nuisances(made, told.assign(score=scores), data, images.rules, seed), scratch)
    return out


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


def _scales(member: Made) -> Scales:
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
