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
from components.progress import progress
from components.records import SCORE_COLUMNS
from components.scoring.bundle import Bundle

log = logging.getLogger("loupe")


def score(bundle: Path, images: Sequence[Path], out: Path, maps: Path | None = None) -> Path:
    """Write *out* (records.SCORE_COLUMNS); with *maps*, each raw heat map as float32 .npy (H, W).

    A file that is no image is named, and the others are scored all the same; DataError when none could be.
    """
    opened = Bundle.open(bundle)
    records = []
    for path in progress(images, f"scoring {len(images)} images"):
        try:
            records.append(_record(opened, path, maps))
        except DataError as error:
            log.error("not scored: %s", error)
    if not records:
        raise DataError(f"none of the {len(images)} files could be scored; give image files")
    _write(records, out)
    log.info("%d of %d images scored with %s", len(records), len(images), bundle)
    return out


def _record(bundle: Bundle, path: Path, maps: Path | None) -> dict[str, Any]:
    pixels = decode(path)
    image = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]).astype(np.float32) / np.float32(255)
    started = time.perf_counter()
    scores, heat = bundle.score(image)
    latency = 1000 * (time.perf_counter() - started)
    p, decision = bundle.judge(scores)
    return {
        "image_id": str(path),
        "dataset": bundle.manifest["dataset"],
        "score": float(scores[0]),
        "p_value": float(p[0]),
        "decision": decision[0],
        "threshold": bundle.calibration["threshold"],
        "model": bundle.manifest["detector"],
        "model_version": bundle.manifest["model"][:12],
        "source": "batch",
        "width": pixels.shape[1],
        "height": pixels.shape[0],
        "latency_ms": latency,
        "map_uri": _write_map(maps, path, heat[0, 0]) if maps else None,
    }


def _write_map(folder: Path, path: Path, heat: np.ndarray) -> str:
    # The name alone may occur in several folders; the hash of the whole path keeps them apart.
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{path.stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:8]}.npy"
    np.save(target, heat)
    return str(target)


def _write(records: list[dict[str, Any]], out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: [record.get(name) for record in records] for name in SCORE_COLUMNS}
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.with_name(f".{out.name}.part")
    pq.write_table(pa.table(columns), scratch)
    scratch.replace(out)
