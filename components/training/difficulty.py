"""How hard graded anomalies are on a data set: a fixed probe chooses their strength, so that no check is full or blind.

The probe (``training.probe``) stands for no detector that is chosen: it only says what can be seen at all.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from components.backbones.features import FeatureStore
from components.backbones.runtime import through_graphs
from components.core.cache import features_folder
from components.core.progress import progress
from components.core.runtime import keep_freed_memory, side_by_side
from components.datasets.loading import read_decoding
from components.detectors.contract import Detector
from components.pictures.decoding import Decoding
from components.pictures.framing import region
from components.pictures.kept import decode
from components.synthesis.once import drawn_once
from components.synthesis.settings import SynthesisSettings
from components.synthesis.strategies import GRADED
from components.synthesis.synthesise import generator, on_whole, spread, synthesise
from components.training.data import StoredImages, by_picture
from components.training.model import score_pictures
from components.training.probe import probe_of
from components.training.select import against, scores_of
from components.training.settings import TrainSettings
from components.training.train import file_images, normal_rows

log = logging.getLogger("loupe")
WANTED = (0.75, 0.92)  # the probe's AUROC: within the 0.7 to 0.95 that its own spread on few pictures may add to
MIDDLE = 0.85
WEAKEST, STRONGEST = 0.03, 1.0
TRIES = 5  # halvings of that range, in its logarithm
PICTURES = 24


@dataclass(frozen=True)
class Level:
    """The strength that was chosen for a kind, and what the probe's AUROC was there, over so many anomalies."""

    strength: float
    probe_auroc: float
    anomalies: int


@dataclass(frozen=True)
class Probe:
    """A fitted detector, its scores of the calibrate normals (N,), and the normals that anomalies are drawn on."""

    detector: Detector
    normals: np.ndarray
    paths: Sequence[Path]
    rules: Decoding

    def auroc(self, kind: str, settings: SynthesisSettings, seed: int) -> float:
        """AUROC of one anomaly of *kind* on each of the paths against the calibrate normals."""
        drawn = side_by_side(lambda path: self._made(kind, path, settings, seed), self.paths)
        found = [score_pictures(self.detector, [picture], self.rules) for picture in drawn]
        return against(self.normals, np.concatenate(found))

    def _made(self, kind: str, path: Path, settings: SynthesisSettings, seed: int) -> np.ndarray:
        # The same places and shapes at every strength: only the strength is compared.
        picture, rng = decode(path, rules=self.rules), generator(seed, "probe", path.name, kind)
        return on_whole(kind, picture, rng, settings, region(self.rules.roi, picture.shape)).image


@dataclass(frozen=True)
class Checks:
    """How the anomalies of a data set that check detectors are made."""

    data: Path
    settings: SynthesisSettings
    train: TrainSettings
    seed: int

    def levels(self, split: Path) -> dict[str, Level]:
        """The level of each graded kind, by a probe of the fit normals of *split*."""
        kinds = [name for name in self.settings.strategies if name in GRADED]
        if not kinds:
            return {}
        probe = fitted(split, self.data, self.train)
        with through_graphs(probe.detector, features_folder(self.train.store)):
            found = {k: level_of(probe, k, self.settings, self.seed) for k in progress(kinds, "how hard anomalies are")}
        for kind, level in found.items():
            log.info("%s: strength %.2f, where the probe has AUROC %.2f", kind, level.strength, level.probe_auroc)
        return found

    def make(self, split: Path, out: Path, levels: Mapping[str, Level]) -> Path:
        """Anomalies on the calibrate normals of *split* (``synthesis.synthesise``), the graded ones at their levels."""
        told = {kind: asdict(level) for kind, level in levels.items()}
        return synthesise(split, self.data, out, self.settings, self.seed, told)


def graded(split: Path, data: Path, out: Path, settings: SynthesisSettings, train: TrainSettings, seed: int) -> Path:
    """Synthetic anomalies for checking, the graded ones as strong as the probe says."""
    checks = Checks(data, settings, train, seed)
    return checks.make(split, out, checks.levels(split))


def level_of(probe: Probe, kind: str, settings: SynthesisSettings, seed: int) -> Level:
    """By halving: the strength nearest to the middle of what is wanted, or an end of the range."""
    low, high = WEAKEST, STRONGEST
    tried: list[Level] = []
    with drawn_once():
        for _ in range(TRIES):
            strength = math.sqrt(low * high)
            auroc = probe.auroc(kind, spread(settings, strength), seed)
            tried.append(Level(strength, auroc, len(probe.paths)))
            if WANTED[0] <= auroc <= WANTED[1]:
                break
            low, high = (strength, high) if auroc < MIDDLE else (low, strength)
    return min(tried, key=lambda level: abs(level.probe_auroc - MIDDLE))


def fitted(split: Path, data: Path, train: TrainSettings) -> Probe:
    """The probe on the fit normals of a split."""
    keep_freed_memory()
    rules, store = read_decoding(split), FeatureStore(features_folder(train.store), train.store_limit_gb)
    images = {side: file_images(data, normal_rows(split, side), rules) for side in ("fit", "calibrate")}
    detector = probe_of(StoredImages(images["fit"], store), train.preset)
    with torch.inference_mode():
        rows = scores_of(detector, detector.inputs(StoredImages(images["calibrate"], store)))
    normals = by_picture(images["calibrate"], rows)
    paths = images["calibrate"].paths
    chosen = paths[:: max(1, len(paths) // PICTURES)][:PICTURES]
    return Probe(detector, normals, chosen, rules)
