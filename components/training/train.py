"""The training component: one detector on the fit normals of one split."""

import dataclasses
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment

from components.backbones.features import FeatureStore, ImageSource
from components.core.artefacts import (
    code_hash,
    file_hash,
    read_json,
    recorded,
    tree_hash,
    values_hash,
    versions,
    write_json,
)
from components.core.cache import features_folder
from components.core.errors import DataError, SettingsError
from components.core.records import NORMAL
from components.core.runtime import keep_freed_memory
from components.core.settings import plain
from components.datasets.loading import read_decoding, read_split, rows
from components.detectors.catalogue import create, detector_class
from components.detectors.contract import Detector
from components.detectors.presets import LONG
from components.pictures.decoding import Decoding
from components.pictures.masks import Mask
from components.training.checkpoint import Checkpoint
from components.training.data import CheckImages, FileImages, FitImages, StoredImages
from components.training.descriptors import FILE as DESCRIPTORS
from components.training.descriptors import described, sample
from components.training.evidence import of_folds, with_nuisances, write_evidence
from components.training.filling import SharedStore
from components.training.grown import Grown
from components.training.loop import UNTIL_FLAT, USUAL, Checks, Loop
from components.training.model import save_model
from components.training.pose import FILE, PICTURES, agreed, learned, taken
from components.training.ranks import Ranks
from components.training.rehearsal import Rehearsal, within
from components.training.select import FoldsAUROC, KeptChecks, SyntheticAUROC
from components.training.settings import TrainSettings
from components.training.several import Asked, Place, joined, require_devices, train_in

log = logging.getLogger("loupe")


def train(
    name: str,
    split: Path,
    synthetic: Path,
    data: Path,
    out: Path,
    settings: TrainSettings,
    seed: int,
    folds: Sequence[Path] = (),
    checks: Path | None = None,
    place: Place | None = None,
) -> Path:
    """Train detector *name*; writes model.safetensors, settings.json, history.json and pose.json to *out*.

    The models of *folds* choose the epochs, where they are given, instead of the calibrate normals. With *checks* the
    model of each check is kept below it.

    An earlier attempt that was killed is resumed from the checkpoint beside *out* when everything else is the same. A
    closed form goes on from the state beside *out* where the pictures of an earlier fit come first again.

    With ``settings.devices`` above 1 it runs as so many processes, of which *place* is this one; this call waits for
    them and raises what one of them fails with. Raises SettingsError for more devices than there are or than can share.
    """
    require_devices(name, settings)
    asked = Asked(name, split, synthetic, data, out, seed, folds, checks)
    if place:
        with joined(place, settings.stage_seconds):
            _trained(asked, settings, place)
    elif settings.devices > 1:
        train_in(settings.devices, asked, settings)
    else:
        _trained(asked, settings, None)
    return out


def _trained(asked: Asked, settings: TrainSettings, place: Place | None) -> None:
    """What ``train`` does, in this process as one of several or alone."""
    name, split, synthetic, data, out, seed, folds, checks = asked
    inputs, rules = {"split": split, "synthetic": synthetic}, read_decoding(split)
    keep_freed_memory()
    fabric = _fabric(settings, place)
    ranks = Ranks(fabric.global_rank, fabric.world_size, fabric.device)
    kept, spent = (features_folder(settings.store), settings.store_limit_gb), {"pose": 0.0}
    store = SharedStore(*kept, ranks=ranks) if place else FeatureStore(*kept)
    normal = file_images(data, normal_rows(split, "fit"), rules)
    require_clips(name, rules, split)
    moves = ranks.first(_moves(name, normal, split, data, store, settings, folds, spent))
    own, told = (None, pd.DataFrame()) if folds else _own_checks(split, synthetic, data, store, ranks)
    known, (defects, masks) = learned(normal, moves), _labelled(data, split)
    images = FitImages(known, store, seed, spent=spent, anomalous=defects, masks=masks)
    what = _identity(asked, moves, rules)
    method = _in_time(name, settings, own, images, out, what, fabric)
    checkpoint = Checkpoint(out.parent / f".{out.name}.checkpoint", values_hash([name, plain(method), *what]))
    torch.manual_seed(seed)  # behind what was measured, which makes a detector too
    detector = create(name, method)
    record = recorded(out, "train", {"detector": name, "settings": method}, inputs, seed)
    with record if ranks.writes else nullcontext() as scratch:
        select: SyntheticAUROC | FoldsAUROC | KeptChecks
        select = own or FoldsAUROC([read_json(fold / "history.json") for fold in folds])
        if checks:
            select = KeptChecks(select, checks, ranks.writes)
        fabric.to_device(detector)
        often = _checks(settings) if select is own else USUAL
        grown = _grown(out, [name, plain(method), seed, settings.precision, str(fabric.device)], known, rules)
        loop = Loop(detector, select, checkpoint, seed, settings.checkpoint_every, fabric, grown, often, ranks)
        if not isinstance(select, SyntheticAUROC):
            select.loop = loop
        loop.run(images)
        scores = own.scores(detector) if own else None
        if scratch is None:  # not the process that writes
            return
        _write(scratch, loop, moves, _evidence(asked, detector, told, scores, rules, kept[0]))
        np.save(scratch / DESCRIPTORS, described(detector, sample(normal, known, FeatureStore(*kept))))
        spent = {**loop.spent, **images.spent}
        write_json(scratch / "timing.json", {"features": dataclasses.asdict(store.usage), "spent": spent})
    checkpoint.discard()
    log.info("%s: trained, in %s", name, out)


def _identity(asked: Asked, moves: dict[str, Any], rules: Decoding) -> list[Any]:
    """What a checkpoint must have been made of, beside the detector's settings."""
    what = [asked.seed, tree_hash(asked.split / "split.parquet"), tree_hash(asked.synthetic)]
    what += [tree_hash(fold / "history.json") for fold in asked.folds]
    what += [moves["moves"], moves["turns"]] if moves["moves"] else []
    return what + (rules.identity if rules.identity != [None] else [])


def _evidence(
    asked: Asked,
    detector: Detector,
    told: pd.DataFrame,
    scores: np.ndarray | None,
    rules: Decoding,
    graphs: Path | None,
) -> pd.DataFrame:
    """Every picture that the detector was checked with, and its score."""
    if scores is not None:
        return with_nuisances(detector, told.assign(score=scores), asked.data, rules, asked.seed, graphs)
    return of_folds(asked.folds)


def _write(scratch: Path, loop: Loop, moves: dict[str, Any], checked: pd.DataFrame) -> None:
    save_model(loop.detector, scratch)
    write_json(scratch / FILE, moves)
    write_json(scratch / "history.json", loop.history)
    write_evidence(checked, scratch)


def _grown(out: Path, asked: list[Any], images: ImageSource, rules: Decoding) -> Grown:
    """The state of an earlier fit into *out*, of the same request, program and libraries."""
    alike = values_hash([*asked, rules.identity, code_hash(), versions()])
    known = getattr(images, "identities", None) or []  # moved rows, which come behind the pictures, have their own
    return Grown(Checkpoint(out.parent / f".{out.name}.state", alike), known)


def _checks(settings: TrainSettings) -> Checks:
    return UNTIL_FLAT if settings.preset == LONG else USUAL


def _in_time(
    name: str,
    settings: TrainSettings,
    own: SyntheticAUROC | None,
    images: FitImages,
    out: Path,
    what: list[Any],
    fabric: Fabric,
) -> Any:
    """The settings of detector *name*, with no more epochs than ``train.minutes`` have room for."""
    method = settings.method(name)
    if settings.minutes is None or own is None:
        return method
    check, ranks = own.check, own.ranks

    def rehearse() -> Rehearsal:
        torch.manual_seed(0)
        detector = create(name, method)
        fabric.to_device(detector)
        with tempfile.TemporaryDirectory() as folder:
            select = SyntheticAUROC(check, ranks)
            played = Rehearsal(detector, select, Path(folder), fabric, _checks(settings), ranks)
            played.run(images)
        return played

    asked = values_hash([name, plain(method), settings.minutes, settings.precision, *what])
    return within(settings.minutes, method, rehearse, out.parent / f".{out.name}.minutes.json", asked, ranks)


def _fabric(settings: TrainSettings, place: Place | None) -> Fabric:
    """On the one device of this machine, or as the process of *place* on its own."""
    if place is None:
        return Fabric(accelerator="auto", devices=1, precision=settings.precision)  # type: ignore[arg-type]
    os.environ |= {"LOCAL_RANK": str(place.rank), "NODE_RANK": "0"}  # by which Fabric knows that it is started already
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    fabric = Fabric(
        accelerator="cuda" if torch.cuda.is_available() else "cpu",
        devices=place.of,
        strategy="ddp",
        precision=settings.precision,  # type: ignore[arg-type]
        plugins=[LightningEnvironment()],
    )
    fabric.launch()
    return fabric


def normal_rows(split: Path, side: str) -> pd.DataFrame:
    """The good pictures of one side of a split. Raises DataError where there are none."""
    table = read_split(split)
    found = table[(table["split"] == side) & (table["label"] == "normal")]
    if found.empty:
        raise DataError(f"{split}: no normal images on the {side} side; add good images or lower calibrate_share")
    return found


def require_clips(name: str, rules: Decoding, where: Path) -> None:
    """Raises SettingsError for a detector of clips where pictures stand by themselves."""
    if detector_class(name).clips and not rules.stride:
        raise SettingsError(
            f"{where}: {name} looks at clips, and these are single pictures; give frames with an adapter of clips, or "
            "another detector"
        )


def _moves(
    name: str,
    normal: FileImages,
    split: Path,
    data: Path,
    store: FeatureStore,
    settings: TrainSettings,
    folds: Sequence[Path],
    spent: dict[str, float],
) -> dict[str, Any]:
    """How good pictures are turned and mirrored to learn from (``pose``); the seconds that it took go to *spent*.

    What is measured on single frames says nothing of how things move: a detector of clips takes named moves alone, and
    so does one that is not ``turned``.
    """
    kind = detector_class(name)
    if settings.moves == "auto" and (kind.clips or not kind.turned):
        return agreed([], len(normal))
    if folds:
        return agreed([read_json(fold / FILE) for fold in folds], len(normal))
    started = time.perf_counter()
    found = taken(normal, file_images(data, moved_rows(split), normal.rules), store, settings)
    spent["pose"] = time.perf_counter() - started
    return found


def moved_rows(split: Path) -> pd.DataFrame:
    """The calibrate normals that moves are measured on, spread evenly."""
    rows = normal_rows(split, "calibrate")
    return rows.iloc[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), PICTURES)).round().astype(int))]


def file_images(data: Path, rows: pd.DataFrame, rules: Decoding) -> FileImages:
    """The files of *rows*, in their order."""
    return FileImages(tuple(data / i for i in rows["image_id"]), tuple(rows["sha256"]), rules)


def _labelled(data: Path, split: Path) -> tuple[FileImages | None, tuple[Mask, ...]]:
    """The anomalous images on the fit side (``split.labelled``) with their masks."""
    found = rows(split, "fit", "anomalous")
    rules = read_decoding(split)
    masks = (Mask(data, row["mask"], row.get("mask_rule"), rules) for row in found.to_dict("records"))
    return (file_images(data, found, rules) if len(found) else None), tuple(masks)


def check_images(split: Path, synthetic: Path, data: Path) -> tuple[FileImages, pd.DataFrame]:
    """What chooses, and of each of its pictures image_id, kind and extent."""
    chosen, table = normal_rows(split, "calibrate"), pd.read_parquet(synthetic / "synthetic.parquet")
    normal, made = file_images(data, chosen, read_decoding(split)), [synthetic / i for i in table["image_id"]]
    images = FileImages((*normal.paths, *made), (*normal.hashes, *(file_hash(p) for p in made)), normal.rules)
    good = pd.DataFrame({"image_id": chosen["image_id"], "kind": NORMAL, "extent": np.nan})
    told = pd.concat([good, table.rename(columns={"strategy": "kind"})[list(good.columns)]], ignore_index=True)
    return images, told


def anomalous(told: pd.DataFrame) -> np.ndarray:
    """bool (N,): which pictures of ``check_images`` are anomalies."""
    return (told["kind"] != NORMAL).to_numpy()


def _own_checks(
    split: Path, synthetic: Path, data: Path, store: FeatureStore, ranks: Ranks
) -> tuple[SyntheticAUROC, pd.DataFrame]:
    """What chooses where calibrate normals are held out, and what is told of its pictures."""
    checked, told = check_images(split, synthetic, data)
    return SyntheticAUROC(CheckImages(StoredImages(checked, store), anomalous(told)), ranks), told
