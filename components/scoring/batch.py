"""Score image files with a bundle into one parquet table of score records."""

import hashlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.decoding import decode
from components.errors import DataError
from components.measuring import grey, statistics
from components.progress import progress
from components.records import SCORE_COLUMNS
from components.scoring.bundle import Bundle

log = logging.getLogger("loupe")


def score(
    bundle: Path, images: Sequence[Path], out: Path, maps: Path | None = None, group: str | None = None,
    cascade: bool = False,
) -> Path:  # fmt: skip
    """Write *out* (records.SCORE_COLUMNS); with *maps*, each raw heat map as float32 .npy (H, W).

    *group* says what the images show, where a model knows several products; without it the overall table decides.
    With *cascade* the edge graph answers alone where it is certain, and the column ``graph`` says which one answered.

    A file that is no image is named, and the others are scored all the same; DataError when none could be.
    """
    opened = Bundle.open(bundle)
    opened.require_group(group)
    columns = (*SCORE_COLUMNS, "graph") if cascade else SCORE_COLUMNS
    records = []
    for path in progress(images, f"scoring {len(images)} images"):
        try:
            records.append(record(opened, path, str(path), "batch", maps, group, cascade))
        except DataError as error:
            log.error("not scored: %s", error)
    if not records:
        raise DataError(f"none of the {len(images)} files could be scored; give image files")
    write_records(records, out, columns)
    log.info("%d of %d images scored with %s", len(records), len(images), bundle)
    if cascade:
        early = [r["decision"] for r in records if r["graph"] == "edge"]
        log.info(
            "the edge graph alone answered %d of %d: %d normal, %d anomalous",
            len(early), len(records), early.count("normal"), early.count("anomalous"),
        )  # fmt: skip
    return out


def tensor(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1], contiguous."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)


def record(
    bundle: Bundle, image: Path | bytes, name: str, source: str, maps: Path | None = None, group: str | None = None,
    cascade: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The score record of one image, and which graph answered. Raises DataError when it is none."""
    pixels = decode(image, name)
    started = time.perf_counter()
    answer = bundle.answer(tensor(pixels)[None], group, cascade)
    latency = 1000 * (time.perf_counter() - started)
    return {
        **_entry(bundle, pixels, answer.score, answer.embedding, group, answer.verdict),
        "graph": answer.graph,
        "image_id": name,
        "source": source,
        "latency_ms": latency,
        "map_uri": _write_map(maps, name, answer.map) if maps else None,
    }


def judged(
    bundle: Bundle, pixels: np.ndarray, score: float, embedding: np.ndarray, group: str | None = None
) -> dict[str, Any]:
    """What a score record says of a scored picture, whoever scored it."""
    return _entry(bundle, pixels, score, embedding, group, bundle.judge(score, group))


def _entry(
    bundle: Bundle, pixels: np.ndarray, score: float, embedding: np.ndarray, group: str | None,
    verdict: tuple[float, str, float],
) -> dict[str, Any]:  # fmt: skip
    p, decision, threshold = verdict
    return {
        "dataset": bundle.manifest["dataset"],
        "group": group,
        "score": score,
        "p_value": p,
        "decision": decision,
        "threshold": threshold,
        "model": bundle.manifest["detector"],
        "model_version": bundle.version,
        "embedding": [float(value) for value in embedding],
        **statistics(grey(pixels)),
    }


def _write_map(folder: Path, name: str, heat: np.ndarray) -> str:
    # The stem alone may occur in several folders; the hash of the whole path keeps them apart.
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{Path(name).stem}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.npy"
    np.save(target, heat)
    return str(target)


def write_records(records: Sequence[dict[str, Any]], out: Path, columns: Sequence[str] = SCORE_COLUMNS) -> Path:
    """Records as one parquet file, written aside and renamed; absent values are null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.with_name(f".{out.name}.part")
    pq.write_table(pa.table({name: [record.get(name) for record in records] for name in columns}), scratch)
    scratch.replace(out)
    return out
