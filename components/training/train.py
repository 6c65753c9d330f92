"""The training component: one detector on the fit normals of one split."""

import dataclasses
import logging
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from components.backbones.features import FeatureStore
from components.core.artefacts import file_hash, recorded, tree_hash, values_hash, write_json
from components.core.cache import features_folder
from components.core.errors import DataError
from components.core.records import NORMAL
from components.core.runtime import keep_freed_memory
from components.core.settings import plain
from components.datasets.loading import read_decoding, read_split, rows
from components.detectors.catalogue import create, settings_for
from components.detectors.contract import Detector
from components.pictures.decoding import Decoding
from components.pictures.masks import Mask
from components.training.checkpoint import Checkpoint
from components.training.data import CheckImages, FileImages, FitImages, StoredImages
from components.training.evidence import nuisances, summary
from components.training.loop import Loop
from components.training.model import save_model
from components.training.select import SyntheticAUROC
from components.training.settings import TrainSettings

log = logging.getLogger("loupe")


def train(name: str, split: Path, synthetic: Path, data: Path, out: Path, settings: TrainSettings, seed: int) -> Path:
    """Train detector *name*; writes model.safetensors, settings.json and history.json to *out*.

    An earlier attempt that was killed is resumed from the checkpoint beside *out* when everything else is the same.
    """
    method = settings_for(name, settings.preset, settings.detectors.get(name))
    inputs, rules = {"split": split, "synthetic": synthetic}, read_decoding(split)
    what = [name, plain(method), seed, tree_hash(split / "split.parquet"), tree_hash(synthetic)]
    fingerprint = values_hash([*what, *([rules.white] if rules.white else [])])
    checkpoint = Checkpoint(out.parent / f".{out.name}.checkpoint", fingerprint)
    keep_freed_memory()
    torch.manual_seed(seed)
    detector = create(name, method)
    with recorded(out, "train", {"detector": name, "settings": method}, inputs, seed) as scratch:
        store = FeatureStore(features_folder(settings.store), settings.store_limit_gb)
        checked, told = check_images(split, synthetic, data)
        select = SyntheticAUROC(CheckImages(StoredImages(checked, store), anomalous(told)))
        loop = Loop(detector, select, checkpoint, seed, settings.checkpoint_every, _fabric(settings, detector))
        defects, masks = _labelled(data, split)
        images = FitImages(_images(data, _rows(split, "fit"), rules), store, seed, anomalous=defects, masks=masks)
        loop.run(images)
        save_model(detector, scratch)
        write_json(scratch / "history.json", loop.history)
        write_evidence(detector, told.assign(score=select.scores(detector)), data, rules, seed, scratch)
        spent = {**loop.spent, **images.spent}
        write_json(scratch / "timing.json", {"features": dataclasses.asdict(store.usage), "spent": spent})
    checkpoint.discard()
    log.info("%s: trained, in %s", name, out)
    return out


def _fabric(settings: TrainSettings, detector: torch.nn.Module):  # type: ignore[no-untyped-def]
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="auto", devices=1, precision=settings.precision)  # type: ignore[arg-type]
    fabric.to_device(detector)
    return fabric


def _rows(split: Path, side: str) -> pd.DataFrame:
    table = read_split(split)
    found = table[(table["split"] == side) & (table["label"] == "normal")]
    if found.empty:
        raise DataError(f"{split}: no normal images on the {side} side; add good images or lower calibrate_share")
    return found


def _images(data: Path, rows: pd.DataFrame, rules: Decoding) -> FileImages:
    return FileImages(tuple(data / i for i in rows["image_id"]), tuple(rows["sha256"]), rules)


def _labelled(data: Path, split: Path) -> tuple[FileImages | None, tuple[Mask, ...]]:
    """The anomalous images on the fit side (``split.labelled``) with their masks."""
    found = rows(split, "fit", "anomalous")
    rules = read_decoding(split)
    masks = (Mask(data, row["mask"], row.get("mask_rule"), rules) for row in found.to_dict("records"))
    return (_images(data, found, rules) if len(found) else None), tuple(masks)


def check_images(split: Path, synthetic: Path, data: Path) -> tuple[FileImages, pd.DataFrame]:
    """What chooses, and of each of its pictures image_id, kind and extent."""
    chosen, table = _rows(split, "calibrate"), pd.read_parquet(synthetic / "synthetic.parquet")
    normal, made = _images(data, chosen, read_decoding(split)), [synthetic / i for i in table["image_id"]]
    images = FileImages((*normal.paths, *made), (*normal.hashes, *(file_hash(p) for p in made)), normal.rules)
    good = pd.DataFrame({"image_id": chosen["image_id"], "kind": NORMAL, "extent": np.nan})
    told = pd.concat([good, table.rename(columns={"strategy": "kind"})[list(good.columns)]], ignore_index=True)
    return images, told


def anomalous(told: pd.DataFrame) -> np.ndarray:
    """bool (N,): which pictures of ``check_images`` are anomalies."""
    return (told["kind"] != NORMAL).to_numpy()


def write_evidence(detector: Detector, told: pd.DataFrame, data: Path, rules: Decoding, seed: int, out: Path) -> None:
    """check.parquet, CHECK_COLUMNS of the detector as it is kept, and check.json; *told* has its scores already."""
    names = list(told[told["kind"] == NORMAL]["image_id"])
    late = nuisances(detector, names, [data / n for n in names], rules, seed)
    checked = pd.concat([told, late], ignore_index=True)
    checked.to_parquet(out / "check.parquet", index=False)
    write_json(out / "check.json", summary(checked))
