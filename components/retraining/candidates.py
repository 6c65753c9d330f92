"""Candidate normals from the drifted windows: reviewed labels first, a contamination check for the rest."""

import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from components.core.artefacts import recorded, values_hash, write_json
from components.core.cache import features_folder
from components.core.errors import DataError
from components.core.filenames import inside
from components.core.progress import progress
from components.monitoring.kept import latest
from components.monitoring.verdict import Verdict
from components.pictures.decoding import DEFAULT, Decoding, decode
from components.retraining.settings import RetrainSettings
from components.scorelog import table
from components.scorelog.labels import read_labels
from components.scorelog.shipper import image_key
from components.scorelog.table import Record
from components.scorelog.whose import scored_by
from components.storage import Store

log = logging.getLogger("loupe")
COLUMNS = ("file", "sha256", "source", "review", "part", "score", "deviation")


def gather(
    store: Store,
    verdict: Verdict,
    out: Path,
    settings: RetrainSettings,
    seed: int,
    features: str | None,
    rules: Decoding = DEFAULT,
) -> Path:
    """Write candidates.parquet, candidates.json and the images. Raises DataError when there are too few.

    *rules* say how the champion, whose pictures they were, decodes them.

    ``review`` is normal, defect or none; ``part`` is train, holdout, trimmed or defect.
    """
    with recorded(out, "candidates", settings, {}, seed) as scratch:
        pool = _pool(store, verdict, settings)
        rows = [r for r in (_fetch(store, record, scratch, rules) for record in progress(pool, "candidates")) if r]
        if len(rows) < settings.min_candidates:
            raise DataError(
                f"{verdict.id}: {len(rows)} candidate images are fewer than retrain.min_candidates "
                f"({settings.min_candidates}); wait for more, or lower it"
            )
        since = min(record["scored_at"] for record in pool) if pool else ""
        chosen = _review(pd.DataFrame(rows), read_labels(store, since=since))
        chosen = _trim(chosen, scratch, settings, seed, features, rules)
        chosen[list(COLUMNS)].to_parquet(scratch / "candidates.parquet", index=False)
        write_json(scratch / "candidates.json", _summary(chosen, settings))
    return out


def _pool(store: Store, verdict: Verdict, settings: RetrainSettings) -> list[Record]:
    """Each picture once since the first window of the alarm, the newest ones."""
    since = _beginning(store, verdict)
    unique: dict[str, Record] = {}
    for record in table.newest_first(store, table.SCORES, verdict.source, since):
        if record["scored_at"] >= since and scored_by(record, verdict.model_version, verdict.model):
            unique.setdefault(record["sha256"], record)
    return list(unique.values())[: settings.max_candidates]


def _beginning(store: Store, verdict: Verdict) -> str:
    """When the first window began that belongs to the unbroken run of flagged ones up to *verdict*."""
    first = verdict
    for earlier in latest(store, verdict.source, verdict.model_version, verdict.model, verdict.number):
        if not earlier.flagged:
            # Only what came after the last quiet window: the half it shares with the first flagged one had not drifted.
            return str(earlier.window["last"][0])
        first = earlier
    return str(first.window["first"][0])


def _fetch(store: Store, record: Record, out: Path, rules: Decoding) -> Record | None:
    """The image on disk under its hash and its own ending; None when it is no image any more."""
    if not record.get("image_uri"):
        return None
    ending = Path(record["image_id"]).suffix.lower() or ".png"
    name = f"images/{record['sha256'][:16]}{ending}"
    try:
        content = store.get(image_key(record["sha256"]))
        decode(content, record["image_id"], rules)
    except DataError as error:
        log.error("no candidate: %s", error)
        return None
    (out / "images").mkdir(exist_ok=True)
    inside(out, name).write_bytes(content)
    return {"file": name, "record_id": record["record_id"], **{k: record[k] for k in ("sha256", "source")}}


def _review(pool: pd.DataFrame, labels: dict[str, Record]) -> pd.DataFrame:
    """A label on any record of a picture is a label on the picture."""
    by_picture = {label["sha256"]: label["label"] for label in labels.values()}
    meaning = {"defect": "defect", "false_alarm": "normal"}
    return pool.assign(review=[meaning.get(by_picture.get(s, ""), "none") for s in pool["sha256"]])


def _trim(
    pool: pd.DataFrame, root: Path, settings: RetrainSettings, seed: int, features: str | None, rules: Decoding
) -> pd.DataFrame:
    from components.backbones.features import FeatureStore  # torch, which most of the flow is without
    from components.retraining import contamination

    paths = [root / name for name in pool["file"]]
    images = contamination.images_of(paths, list(pool["sha256"]), rules)
    scores = contamination.cross_scores(images, FeatureStore(features_folder(features)), settings, seed)
    pool = pool.assign(score=scores, deviation=contamination.deviations(scores))
    parts = [_part(row, settings) for row in pool.to_dict("records")]
    return pool.assign(part=parts)


def _part(row: Mapping[Any, Any], settings: RetrainSettings) -> str:
    if row["review"] == "defect":
        return "defect"
    # The holdout is drawn before trimming and stays untrimmed: it is the window as the line saw it.
    share = int.from_bytes(hashlib.sha256(f"holdout/{row['sha256']}".encode()).digest()[:8], "big") / 2**64
    if share < settings.holdout_share:
        return "holdout"
    return "trimmed" if row["review"] == "none" and row["deviation"] > settings.trim_at else "train"


def _summary(pool: pd.DataFrame, settings: RetrainSettings) -> dict[str, Any]:
    from components.retraining import contamination

    unreviewed = pool[pool["review"] == "none"]
    beyond = (unreviewed["deviation"] > settings.trim_at).to_numpy()
    return {
        "pool": values_hash(sorted(zip(pool["sha256"], pool["review"], strict=True))),
        "images": len(pool),
        "parts": {str(k): int(v) for k, v in pool["part"].value_counts().items()},
        "reviewed": {str(k): int(v) for k, v in pool["review"].value_counts().items()},
        "beyond": float(beyond.mean()) if len(beyond) else 0.0,
        "contamination": contamination.estimate(beyond, settings.clean_tail) if len(beyond) else 0.0,
    }
