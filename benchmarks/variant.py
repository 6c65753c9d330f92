"""Short trainings in this process, for the studies: the images of a view, the loop, the figures of the test split.

Everything is of seed 0: the split that ``benchmarks.fit`` made, the synthetic anomalies (drawn once, kept on disk) and
the frozen features of the store. A training's seed moves its weights and batches alone.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric

from benchmarks.fit import WORK
from components.backbones.features import FeatureStore, ImageSource
from components.core.artefacts import atomic_dir, file_hash, read_json, values_hash, write_json
from components.core.cache import cache_folder
from components.datasets.loading import read_decoding, rows
from components.detectors.contract import Detector, Phase, TrainingData
from components.evaluation.metrics import bootstrap, image_metrics, pixel_metrics
from components.pictures.masks import at_size, load, truth
from components.pipeline.params import load_params
from components.pipeline.stages import Stages
from components.synthesis.synthesise import identity
from components.training.checkpoint import Checkpoint
from components.training.data import CheckImages, FileImages, FitImages, MadeAnomalies, MadeImages, StoredImages
from components.training.loop import Loop, Select
from components.training.select import moved

KEPT = WORK / "mechanisms"  # scores and drawn anomalies, beside the splits
STORE, SIDE, STEP, ROUNDS = cache_folder() / "features", 256, 2, 1000


@dataclass(frozen=True)
class Kept(FitImages):
    """Fit normals whose synthetic anomalies are drawn once for all variants and kept on disk."""

    def anomalies(self, strategies: tuple[str, ...], size: int, copies: int = 1, grey: bool = False) -> MadeAnomalies:
        settings = replace(self.synthesis, strategies=strategies, size=size)
        at = KEPT / "anomalies" / values_hash([self.images.key, settings, self.seed, copies, grey, identity()])[:24]
        if not at.exists():
            made = MadeImages(self.images, settings, self.seed, copies, grey)
            with atomic_dir(at) as scratch:
                np.save(scratch / "pixels.npy", made._pixels)
                np.save(scratch / "masks.npy", made._masks)
                write_json(scratch / "made.json", {"key": made.key})
        return MadeAnomalies(Drawn(self.images, copies, at), self.store)


class Drawn(MadeImages):
    """Made images read back from disk."""

    def __init__(self, images: ImageSource, copies: int, at: Path) -> None:
        self.images, self.copies, self.seconds = images, copies, 0.0
        self.key = read_json(at / "made.json")["key"]
        self._pixels, self._masks = (np.load(at / f"{what}.npy", "r") for what in ("pixels", "masks"))


class Nowhere(Checkpoint):
    """Nothing is resumed: a variant takes a minute."""

    def __init__(self) -> None:
        super().__init__(Path(), "")

    def load(self) -> None:
        return None

    def save(self, tensors: Any, position: Any) -> None:  # noqa: ARG002
        return None


@dataclass(frozen=True)
class View:
    """The images of one view, seed 0: fit normals and labelled test images."""

    stages: Stages
    store: FeatureStore

    @classmethod
    def of(cls, name: str) -> "View":
        params = replace(load_params(), seed=0, artefacts=str(WORK / "seed-0"))
        return cls(Stages(params, name), FeatureStore(STORE))

    @property
    def split(self) -> Path:
        return self.stages.folder / "split"

    @property
    def synthetic(self) -> Path:
        return self.stages.folder / "synthetic"

    def _files(self, table: pd.DataFrame) -> FileImages:
        paths = tuple(self.stages.data / i for i in table["image_id"])
        return FileImages(paths, tuple(table["sha256"]), read_decoding(self.split))

    def fit(self) -> Kept:
        return Kept(self._files(rows(self.split, "fit", "normal")), self.store)

    def _test(self) -> pd.DataFrame:
        table = rows(self.split, "test")
        return table[table["label"] != "uncertain"].reset_index(drop=True)

    def test(self) -> StoredImages:
        return StoredImages(self._files(self._test()), self.store)

    def check(self) -> CheckImages:
        """What epochs are chosen by: calibrate normals, then synthetic anomalies on them."""
        normal, made = self._files(rows(self.split, "calibrate", "normal")), self._made()
        images = FileImages((*normal.paths, *made.paths), (*normal.hashes, *made.hashes), normal.rules)
        return CheckImages(StoredImages(images, self.store), np.arange(len(images)) >= len(normal))

    def made(self) -> tuple[StoredImages, np.ndarray]:
        """The synthetic anomalies of ``check``, and their masks (N, SIDE / STEP, SIDE / STEP) bool."""
        names = pd.read_parquet(self.synthetic / "synthetic.parquet")["mask"]
        drawn = [truth(self.synthetic, name) for name in names]
        masks = np.stack([at_size(mask, SIDE)[::STEP, ::STEP] for mask in drawn if mask is not None])
        return StoredImages(self._made(), self.store), masks

    def _made(self) -> FileImages:
        names = pd.read_parquet(self.synthetic / "synthetic.parquet")["image_id"]
        paths = tuple(self.synthetic / name for name in names)
        return FileImages(paths, tuple(map(file_hash, paths)))

    def labels(self) -> np.ndarray:
        """(N,) bool, True where anomalous."""
        return (self._test()["label"] == "anomalous").to_numpy()

    def test_ids(self) -> list[str]:
        return list(self._test()["image_id"])

    def kinds(self) -> np.ndarray:
        """(N,) str: the kind of defect, empty where there is none."""
        table = self._test()
        return table["defect"].where(table["label"] == "anomalous", "").fillna("").to_numpy(str)

    def masks(self, step: int = STEP) -> tuple[np.ndarray, np.ndarray]:
        """Rows with known pixels, and their masks (n, SIDE / step, SIDE / step) bool."""
        known, masks, none = [], [], np.zeros((SIDE, SIDE), bool)
        for i, row in enumerate(self._test().to_dict("records")):
            normal = row["label"] == "normal"
            found = none if normal else load(self.stages.data, row["mask"], row.get("mask_rule"), SIDE)
            if found is not None:
                known.append(i)
                masks.append(found[::step, ::step])
        return np.array(known), np.stack(masks)


def apart(module: str, option: str, name: str) -> bool:
    """``python -m benchmarks.MODULE OPTION NAME`` on one thread; False, with a line that says so, if it fails."""
    KEPT.mkdir(parents=True, exist_ok=True)
    log = KEPT / f"{module}.log"
    command = [sys.executable, "-m", f"benchmarks.{module}", option, name]
    with log.open("a") as stream:
        done = subprocess.run(command, stderr=stream, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=False)
    if done.returncode:
        sys.stderr.write(f"{name}: exit {done.returncode}, see {log}\n")
    return not done.returncode


def trained(
    detector: Detector, data: TrainingData, seed: int, select: Select, behind: Callable[[str], None] = lambda _: None
) -> Loop:
    """Train *detector*, on a GPU where there is one; *behind* is called with the name of every phase that has ended."""
    phases = detector.phases

    def watched(given: TrainingData) -> Iterator[Phase]:
        for phase in phases(given):
            yield phase
            behind(phase.name)

    detector.phases = watched  # type: ignore[method-assign]
    fabric = Fabric(accelerator="auto", devices=1)
    fabric.to_device(detector)
    loop = Loop(detector, select, Nowhere(), seed, float("inf"), fabric)
    loop.run(data)
    detector.eval()
    return loop


def figures(detector: Detector, table: Any, view: View, batch: int = 16) -> tuple[dict[str, Any], np.ndarray]:
    """Image AUROC with its interval and pixel AP of the test split, and the image scores (N,)."""
    scores, maps = scored(detector, table, batch)
    labels, (known, masks) = view.labels(), view.masks(STEP)
    found = {"auroc": image_metrics(labels, scores)["auroc"], "interval": bootstrap(labels, scores, ROUNDS, 0)["auroc"]}
    return found | {"pixel_ap": pixel_metrics(masks, maps[known])["ap"] if masks.any() else None}, scores


@torch.inference_mode()
def scored(detector: Detector, table: Any, batch: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Image scores (N,) and maps (N, SIDE / STEP, SIDE / STEP) of *table*."""
    detector.eval()
    device, found = next(detector.parameters()).device, []
    for i in range(0, len(table), batch):
        inputs = moved(table.take(range(i, min(i + batch, len(table)))), device)
        image, maps = detector.score(inputs, (SIDE, SIDE))
        found.append((image.double().cpu(), maps[:, 0, ::STEP, ::STEP].float().cpu()))
    images, maps = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    return finite(images), finite(maps)


def finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=1e30, posinf=1e30, neginf=-1e30)
