"""Score image files with a bundle into one parquet table of score records."""

import hashlib
import logging
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from components.core.errors import DataError, LoupeError, PartlyScoredError
from components.core.filenames import printable
from components.core.places import check_file, writing
from components.core.progress import progress
from components.core.records import SCORE_COLUMNS, Scored, ScoreRecord
from components.decision.bundle import Bundle
from components.decision.conformal import Decided
from components.pictures.clips import decode, target
from components.pictures.listing import BROKEN, UNREADABLE, pictures
from components.pictures.measuring import grey, statistics

log = logging.getLogger("loupe")
PROBLEM = "problem"  # the column that says why a file was not scored
STEM_BYTES = 200  # of an image's name in that of its heat map: file systems take 255 bytes in all


def score(
    bundle: Path,
    images: Sequence[Path],
    out: Path,
    maps: Path | None = None,
    group: str | None = None,
    cascade: bool = False,
) -> Path:
    """Write *out* (records.SCORE_COLUMNS); with *maps*, each raw heat map as float32 .npy (H, W).

    *images* are files, and folders that are searched. *group* says what they show, where a model knows several
    products; without it the overall table decides. With *cascade* the edge graph answers alone where it is certain, and
    the column ``graph`` says which one answered.

    A file that cannot be scored has a row of its own with the reason in the column ``problem``, and the others are
    scored all the same. Raises PartlyScoredError after the table is written, DataError when no file could be scored.
    """
    opened = Bundle.open(bundle)
    opened.require_group(group)
    if cascade:
        _ = opened.edge  # a bundle without one is told of before the work
    _require_writable(out, maps)
    paths = _found(images)
    check_file(out, paths)
    progressing = progress(paths, f"scoring {len(paths)} images")
    records = [_row(opened, path, maps, group, cascade) for path in progressing]
    columns = (*SCORE_COLUMNS, "graph") if cascade else SCORE_COLUMNS
    write_records(records, out, (*columns, PROBLEM))
    failed = sum(r[PROBLEM] is not None for r in records)
    log.info("%d of %d images scored with %s", len(records) - failed, len(records), bundle)
    if cascade:
        early = [r["decision"] for r in records if r.get("graph") == "edge"]
        log.info(
            "the edge graph alone answered %d of %d: %d normal, %d anomalous",
            len(early),
            len(records) - failed,
            early.count("normal"),
            early.count("anomalous"),
        )
    if failed == len(records):
        raise DataError(f"none of the {failed} files could be scored: see column {PROBLEM} of {out}; give image files")
    if failed:
        raise PartlyScoredError(f"{failed} of {len(records)} files were not scored: see column {PROBLEM} of {out}")
    return out


def _found(places: Sequence[Path]) -> list[Path]:
    """The files that *places* name and the pictures in their folders; one that is not there is tried, and fails."""
    paths: list[Path] = []
    for place in places:
        if not place.is_dir():
            paths.append(place)
            continue
        listing = pictures(place)
        log.info("%s: %s", place, listing.summary())
        for reason in (BROKEN, UNREADABLE):
            for path in listing.skipped.get(reason, []):
                log.warning("%s: %s, passed over", path, reason)
        paths += listing.taken
    if not paths:
        raise DataError(f"{', '.join(map(str, places))}: no pictures in there; give image files or their folder")
    return paths


def _require_writable(out: Path, maps: Path | None) -> None:
    """Told before the work and not after it."""
    if out.is_dir():
        raise DataError(f"{out}: is a folder; give --out the name of a file")
    try:
        for folder in filter(None, (out.parent, maps)):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise DataError(f"{error.filename or out}: cannot be written ({error.strerror}); give another place") from error


def _row(bundle: Bundle, path: Path, maps: Path | None, group: str | None, cascade: bool) -> dict[str, Any]:
    """The record of one file, or why it has none; whatever goes wrong with it, the next file is scored."""
    name = printable(str(path))
    try:
        return {**record(bundle, path, name, "batch", maps, group, cascade), PROBLEM: None}
    except DataError as error:
        problem = printable(str(error))
    except LoupeError:  # no fault of this file: the bundle's
        raise
    except Exception as error:
        problem = printable(f"{name}: cannot be scored ({type(error).__name__}: {error})")
    log.error("not scored: %s", problem)
    return {**_origin(bundle, group), "image_id": name, "source": "batch", PROBLEM: problem}


def record(
    bundle: Bundle,
    image: Path | bytes,
    name: str,
    source: str,
    maps: Path | None = None,
    group: str | None = None,
    cascade: bool = False,
) -> ScoreRecord:
    """The score record of one image, and which graph answered. Raises DataError when it is none."""
    return record_of(bundle, decode(image, name, bundle.decoding), name, source, maps, group, cascade)


def record_of(
    bundle: Bundle,
    pixels: np.ndarray,
    name: str,
    source: str,
    maps: Path | None = None,
    group: str | None = None,
    cascade: bool = False,
) -> ScoreRecord:
    """``record`` of what is decoded already: uint8 (H, W, 3), or a window of frames."""
    started = time.perf_counter()
    answer = bundle.answer(pixels, group, cascade)
    latency = 1000 * (time.perf_counter() - started)
    return {
        **_said(bundle, pixels, answer.score, answer.embedding, group, answer.decided),
        "graph": answer.graph,
        "image_id": name,
        "source": source,
        "latency_ms": latency,
        "map_uri": _write_map(maps, name, answer.map) if maps else None,
    }


def entry(bundle: Bundle, pixels: np.ndarray, score: float, embedding: np.ndarray, group: str | None = None) -> Scored:
    """What a score record says of a scored picture, whoever scored it."""
    return _said(bundle, pixels, score, embedding, group, bundle.decide(score, group))


def _said(
    bundle: Bundle,
    pixels: np.ndarray,
    score: float,
    embedding: np.ndarray,
    group: str | None,
    decided: Decided,
) -> Scored:
    known = bundle.manifest
    return {
        "dataset": known.dataset,
        "group": group,
        "model": known.detector,
        "model_version": known.version,
        "score": score,
        "p_value": decided.p_value,
        "decision": decided.decision,
        "threshold": decided.threshold,
        "embedding": [float(value) for value in embedding],
        **statistics(grey(target(pixels)), bundle.decoding.roi),
    }


def _origin(bundle: Bundle, group: str | None) -> dict[str, Any]:
    known = bundle.manifest
    return {"dataset": known.dataset, "group": group, "model": known.detector, "model_version": known.version}


def _write_map(folder: Path, name: str, heat: np.ndarray) -> str:
    # The stem alone may occur in several folders; the hash of the whole path keeps them apart.
    folder.mkdir(parents=True, exist_ok=True)
    name = printable(name)
    stem = Path(name).stem.encode()[:STEM_BYTES].decode(errors="ignore")
    target = folder / f"{stem}-{hashlib.sha256(name.encode()).hexdigest()[:8]}.npy"
    with writing(target):
        np.save(target, heat)
    return str(target)


def write_records(records: Sequence[Mapping[str, Any]], out: Path, columns: Sequence[str] = SCORE_COLUMNS) -> Path:
    """Records as one parquet file, written aside and renamed; absent values are null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    out.parent.mkdir(parents=True, exist_ok=True)
    known = {"score": pa.float64(), "decision": pa.string(), PROBLEM: pa.string()}  # also where all are null
    table = {c: pa.array([record.get(c) for record in records], known.get(c)) for c in columns}
    scratch = out.with_name(f".scores-{uuid.uuid4().hex}.part")  # two processes may write the same file
    with writing(out):
        try:
            pq.write_table(pa.table(table), scratch)
            scratch.replace(out)
        finally:
            scratch.unlink(missing_ok=True)
    return out
