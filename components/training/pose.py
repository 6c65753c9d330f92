"""Which moves of the square leave good pictures as normal as they came: measured without a label, never assumed.

The probe that has seen the fit normals as they come scores calibrate normals as they come and the same ones moved. A
move is taken where the two cannot be told apart. Moves are applied to pictures as they come and never to moved ones, so
they need not be closed: that two moves are taken says nothing of the one that they make together.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.backbones.features import FeatureStore, ImageSource
from components.core.artefacts import code_hash, read_json, values_hash, versions, write_json
from components.core.cache import MOVES_KEPT
from components.core.errors import DataError, SettingsError
from components.detectors.contract import Detector
from components.pictures.decoding import DEFAULT
from components.training.data import StoredImages
from components.training.moves import MOVES, MovedImages, allowed, turns_of
from components.training.probe import probe_of
from components.training.select import BATCH, finite, moved
from components.training.settings import TrainSettings

log = logging.getLogger("loupe")
FILE = "pose.json"  # in the folder of a model: the moves that it learned from, and what was measured
PICTURES = 64  # calibrate normals at the most, spread evenly
FEWEST = 8  # with fewer nothing can be said, and no move is taken
# A move is taken where moved pictures score above unmoved ones with an AUROC that is below LIMIT for certain: the upper
# end of a one-sided 95 % interval. 0.5 is no difference. The end lies about 0.11 above the AUROC at 40 pictures and
# 0.08 at 64, so a product at any angle passes a move 9 times of 10 at 40 and nearly always at 64; groups that are apart
# by three quarters of their spread, an AUROC of 0.7, do not. With fewer pictures less passes, rather than more.
LIMIT = 0.7
ROUNDS = 1000  # of the bootstrap
SIDES = ("worst", "mean")  # of the patches' distances: a part out of place shows in one, a whole one in both


@dataclass(frozen=True)
class Pose:
    """How well moved pictures are told from unmoved ones by one score: AUROC, and the upper end of its interval."""

    auroc: float
    upper: float


Measured = dict[str, dict[str, Pose]]  # by move, by score


def taken(fit: ImageSource, calibrate: ImageSource, store: FeatureStore, settings: TrainSettings) -> dict[str, Any]:
    """What ``pose.json`` holds: the moves, the turns of each picture, and what was measured if that was asked.

    Raises SettingsError for a named move that the region of interest does not allow.
    """
    within = allowed(getattr(fit, "rules", DEFAULT))
    if not isinstance(settings.moves, str):
        return _record(_named(settings.moves, within), len(fit))
    if settings.moves == "none" or not within or len(calibrate) < FEWEST:
        return _record((), len(fit))
    found = _once(fit, calibrate, store, settings.preset, within)
    record = _record([name for name, scores in found.items() if passes(scores)], len(fit))
    told = {name: {score: asdict(pose) for score, pose in scores.items()} for name, scores in found.items()}
    return {**record, "pictures": len(calibrate), "measured": told}


def _once(
    fit: ImageSource, calibrate: ImageSource, store: FeatureStore, preset: str, within: Sequence[str]
) -> Measured:
    """What is ``measured``; kept beside the features, as every detector that learns from these pictures asks for it."""
    if store.root is None:
        return measured(fit, calibrate, store, preset, within)
    asked = [fit.key, calibrate.key, preset, list(within), torch.cuda.is_available(), code_hash(), versions()]
    kept = store.root / f"{MOVES_KEPT}{values_hash(asked)[:24]}.json"
    if known := _read(kept, within):
        return known
    found = measured(fit, calibrate, store, preset, within)
    if not store.usage.unusable:
        write_json(kept, {name: {side: asdict(pose) for side, pose in poses.items()} for name, poses in found.items()})
    return found


def _read(kept: Path, within: Sequence[str]) -> Measured | None:
    """What an earlier training measured; None where nothing whole is there."""
    try:
        known = read_json(kept)
        return {name: {side: Pose(**known[name][side]) for side in SIDES} for name in within}
    except (OSError, DataError, KeyError, TypeError):
        return None


def agreed(records: Sequence[dict[str, Any]], count: int) -> dict[str, Any]:
    """For a training on all of *count* normals, with none left to measure by: the moves of more than half the folds."""
    votes = [name for record in records for name in record["moves"]]
    return _record([name for name in MOVES if 2 * votes.count(name) > len(records)], count)


def learned(fit: ImageSource, record: dict[str, Any]) -> ImageSource:
    """*fit* with the extra rows of *record*; itself where no move is taken."""
    moves, extra = tuple(record["moves"]), record["turns"]
    if moves:
        log.info("turned and mirrored good pictures are learned too, %d of %d: %s", extra, len(fit), ", ".join(moves))
    return MovedImages(fit, moves, extra) if moves else fit


def passes(scores: dict[str, Pose]) -> bool:
    """Whether moved pictures are as normal as the others by every score."""
    return all(pose.upper < LIMIT for pose in scores.values())


def measured(
    fit: ImageSource, calibrate: ImageSource, store: FeatureStore, preset: str, names: Sequence[str] = tuple(MOVES)
) -> Measured:
    """How well pictures of *calibrate* under each of the moves *names* are told from themselves as they come."""
    probe = probe_of(StoredImages(fit, store), preset)
    images = MovedImages(calibrate, tuple(names), len(names))
    scores = distances(probe, StoredImages(images, store)).reshape(len(SIDES), images.poses, len(calibrate))
    return {
        name: {side: told_apart(rows[turn], rows[0]) for side, rows in zip(SIDES, scores, strict=True)}
        for turn, name in enumerate(names, 1)
    }


@torch.inference_mode()
def distances(probe: Detector, images: StoredImages) -> np.ndarray:
    """(2, N): the score of the worst patch of each image, and the mean over its map."""
    table, device = probe.inputs(images), next(probe.parameters()).device
    found = []
    for start in range(0, len(table), BATCH):
        inputs = moved(table.take(range(start, min(start + BATCH, len(table)))), device)
        scores = probe.score(inputs, (probe.size, probe.size))
        found.append(torch.stack([scores.image, scores.map.mean((1, 2, 3))]).cpu())
    return finite(torch.cat(found, 1).numpy())


def told_apart(other: np.ndarray, own: np.ndarray) -> Pose:
    """AUROC of *other* (N,) against *own* (N,), scores of the same pictures, which the bootstrap draws in pairs."""
    wins = (other[:, None] > own) + 0.5 * (other[:, None] == own)
    count = len(own)
    drawn = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), ROUNDS)  # how often each picture
    found = ((drawn @ wins) * drawn).sum(1) / count**2
    return Pose(float(wins.mean()), float(np.quantile(found, 0.95)))


def _record(moves: Sequence[str], count: int) -> dict[str, Any]:
    return {"moves": list(moves), "turns": turns_of(count, len(moves))}


def _named(moves: Sequence[str], within: Sequence[str]) -> list[str]:
    for name in moves:
        if name not in within:
            raise SettingsError(f"train.moves: {name} does not leave the region of interest as it is; leave it out")
    return [name for name in within if name in moves]
