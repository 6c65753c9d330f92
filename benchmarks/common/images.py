"""The images of a view for short trainings: fit normals, synthetic anomalies and labelled test images.

Everything is of seed 0: the split that ``loupe bench fit`` made, the synthetic anomalies (drawn once, kept on disk) and
the frozen features of the store.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.common.results import WORK
from components.backbones.features import FeatureStore
from components.core.artefacts import atomic_dir, file_hash, read_json, values_hash, write_json
from components.core.cache import cache_folder
from components.datasets.loading import read_decoding, rows
from components.pictures.decoding import Decoding
from components.pictures.masks import at_size, load, truth
from components.pipeline.params import load_params
from components.pipeline.stages import Stages
from components.synthesis.synthesise import identity
from components.training.data import (
    CheckImages,
    FileImages,
    FitImages,
    MadeAnomalies,
    MadeImages,
    StoredImages,
    draw_anomalies,
    origins,
)

KEPT = WORK / "mechanisms"  # scores and drawn anomalies, beside the splits
STORE, SIDE, STEP = cache_folder() / "features", 256, 2


@dataclass(frozen=True)
class Kept(FitImages):
    """Fit normals whose synthetic anomalies are drawn once for all variants and kept on disk."""

    def anomalies(self, strategies: tuple[str, ...], size: int, copies: int = 1) -> MadeAnomalies:
        settings = replace(self.synthesis, strategies=strategies, size=size)
        at = KEPT / "anomalies" / values_hash([self.images.key, settings, self.seed, copies, identity()])[:24]
        if not at.exists():
            made = draw_anomalies(self.images, settings, self.seed, copies)
            with atomic_dir(at) as scratch:
                np.save(scratch / "pixels.npy", made.drawn)
                np.save(scratch / "masks.npy", made.marked)
                write_json(scratch / "made.json", {"key": made.key})
        drawn, marked = (np.load(at / f"{what}.npy", "r") for what in ("pixels", "masks"))
        key, rows = read_json(at / "made.json")["key"], origins(self.images, copies, self.seed)
        return MadeAnomalies(MadeImages(key, self.images, rows, drawn, marked), self.store)


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

    @property
    def rules(self) -> Decoding:
        """Those of the split, for whole pictures: the studies count rows as pictures, and all of them see the same."""
        return replace(read_decoding(self.split), tiles=0)

    def _files(self, table: pd.DataFrame) -> FileImages:
        paths = tuple(self.stages.data / i for i in table["image_id"])
        return FileImages(paths, tuple(table["sha256"]), self.rules)

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
        drawn = [truth(self.synthetic, name, rules=self.rules) for name in names]
        masks = np.stack([at_size(mask, SIDE)[::STEP, ::STEP] for mask in drawn if mask is not None])
        return StoredImages(self._made(), self.store), masks

    def _made(self) -> FileImages:
        names = pd.read_parquet(self.synthetic / "synthetic.parquet")["image_id"]
        paths = tuple(self.synthetic / name for name in names)
        return FileImages(paths, tuple(map(file_hash, paths)), self.rules)

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


def trained_scores(name: str) -> Path:
    """Where ``loupe bench fit`` left the test scores of VIEW/DETECTOR."""
    view, _, detector = name.partition("/")
    return View.of(view).stages.of(detector) / "evaluation" / "scores.parquet"
