"""Score image files with a bundle into one table of score records."""

import functools
import hashlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from components.core.errors import DataError, LoupeError, PartlyScoredError
from components.core.filenames import printable
from components.core.places import check_file, writing
from components.core.progress import progress
from components.core.records import SCORE_COLUMNS, Scored, ScoreRecord
from components.core.runtime import Provider, Room, Runs, cores, side_by_side
from components.decision.bundle import Bundle
from components.decision.conformal import Decided
from components.decision.seeing import AT_ONCE, abreast
from components.decision.tables import PROBLEM, REGIONS, require_form, told, write_records
from components.pictures.clips import decode, target
from components.pictures.decoding import extent
from components.pictures.heat import overlay
from components.pictures.listing import BROKEN, UNREADABLE, pictures
from components.pictures.measuring import grey, statistics
from components.pictures.regions import as_text, regions

log = logging.getLogger("loupe")
R = TypeVar("R")
Source = tuple[str, Callable[[], Path | bytes]]  # a picture's name, and how its file is read
STEM_BYTES = 200  # of an image's name in that of its heat map: file systems take 255 bytes in all


def score(
    bundle: Path,
    images: Sequence[Path],
    out: Path,
    maps: Path | None = None,
    group: str | None = None,
    cascade: bool = False,
    overlays: Path | None = None,
    provider: Provider | None = None,
) -> Path:
    """Write *out* (records.SCORE_COLUMNS) as its suffix says: parquet, CSV or JSON.

    With *maps*, each raw heat map as float32 .npy (H, W) too; with *overlays*, each picture as PNG with its heat map
    drawn over it, on the scale of normal pictures. *images* are files, patterns such as ``today/*.png``, and folders
    that are searched. *group* says what they show, where a model knows several
    products; without it the overall table decides. With *cascade* the edge graph answers alone where it is certain, and
    the column ``graph`` says which one answered. *provider* computes in place
    of the one that the bundle was measured with.

    A file that cannot be scored has a row of its own with the reason in the column ``problem``, and the others are
    scored all the same. Raises PartlyScoredError after the table is written, DataError when no file could be scored.
    """
    opened = Bundle.open(bundle, runs=Runs(provider))
    opened.require_group(group)
    if cascade:
        _ = opened.edge  # a bundle without one is told of before the work
    _require_writable(out, maps, overlays)
    paths = files_in(images)
    check_file(out, paths)
    look = (maps, group, cascade, overlays)
    sources = [(printable(str(path)), functools.partial(Path, path)) for path in paths]
    found = alongside(opened, sources, lambda seen, name, content: row(seen, lambda: content, name, "batch", *look))
    records = list(progress(found, f"scoring {len(paths)} images", len(paths)))
    columns = (*SCORE_COLUMNS, REGIONS, *(["graph"] if cascade else []))
    write_records(records, out, (*columns, PROBLEM))
    failed = sum(r[PROBLEM] is not None for r in records)
    log.info("%d of %d images scored with %s", len(records) - failed, len(records), bundle)
    for line in told(records):
        log.info("%s", line)
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


def alongside(bundle: Bundle, sources: Sequence[Source], one: Callable[[Bundle, str, Path | bytes], R]) -> Iterator[R]:
    """What *one* says of each picture, in order; several on a core each, as many as memory has room for.

    On one thread a graph takes less of the processor in all, and answers the same on every machine. A single picture
    has all cores, and a GPU has one picture at a time.
    """
    most = abreast(bundle.provider, min(cores(), len(sources)))
    seen, room = bundle.narrowed() if most > 1 else bundle, Room(AT_ONCE)

    def said(source: Source) -> R:
        name, read = source
        content = read()
        with room.of(extent(content, bundle.decoding)):
            return one(seen, name, content)

    return side_by_side(said, sources, most or 1)


def files_in(places: Sequence[Path]) -> list[Path]:
    """The files that *places* name and the pictures in their folders; one that is not there is tried, and fails."""
    paths: list[Path] = []
    for place in _expanded(places):
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


def _expanded(places: Sequence[Path]) -> list[Path]:
    """*places* with patterns resolved that the shell has left as they are: in quotes, and always on Windows."""
    found: list[Path] = []
    for place in places:
        root, rest = Path(place.anchor), place.relative_to(place.anchor) if place.anchor else place
        pattern = not place.exists() and any(letter in str(rest) for letter in "*?[")
        found += (sorted(root.glob(str(rest))) if pattern else []) or [place]
    return found


def _require_writable(out: Path, *folders: Path | None) -> None:
    """Told before the work and not after it."""
    if out.is_dir():
        raise DataError(f"{out}: is a folder; give --out the name of a file")
    require_form(out)
    try:
        for folder in filter(None, (out.parent, *folders)):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as error:
        raise DataError(f"{error.filename or out}: cannot be written ({error.strerror}); give another place") from error


def row(
    bundle: Bundle,
    read: Callable[[], Path | bytes],
    name: str,
    source: str,
    maps: Path | None = None,
    group: str | None = None,
    cascade: bool = False,
    overlays: Path | None = None,
) -> dict[str, Any]:
    """The record of one image, or why it has none; whatever goes wrong with it, the next one is scored.

    Raises LoupeError for what is no fault of the image: the bundle's, or that of the store it is read from.
    """
    try:
        return {**record(bundle, read(), name, source, maps, group, cascade, overlays), PROBLEM: None}
    except DataError as error:
        problem = printable(str(error))
    except LoupeError:  # no fault of this file: the bundle's
        raise
    except Exception as error:
        problem = printable(f"{name}: cannot be scored ({type(error).__name__}: {error})")
    log.error("not scored: %s", problem)
    return {**_origin(bundle, group), "image_id": name, "source": source, PROBLEM: problem}


def record(
    bundle: Bundle,
    image: Path | bytes,
    name: str,
    source: str,
    maps: Path | None = None,
    group: str | None = None,
    cascade: bool = False,
    overlays: Path | None = None,
) -> ScoreRecord:
    """The score record of one image, and which graph answered. Raises DataError when it is none."""
    pixels, rules = decode(image, name, bundle.decoding), bundle.decoding
    # The region alone is scored; a person wants to see the whole picture.
    shown = target(decode(image, name, rules.whole) if overlays and rules.roi else pixels)
    return record_of(bundle, pixels, name, source, maps, group, cascade, (overlays, shown) if overlays else None)


def record_of(
    bundle: Bundle,
    pixels: np.ndarray,
    name: str,
    source: str,
    maps: Path | None = None,
    group: str | None = None,
    cascade: bool = False,
    overlay_on: tuple[Path, np.ndarray] | None = None,
) -> ScoreRecord:
    """``record`` of what is decoded already: uint8 (H, W, 3) or a window of frames; *overlay_on*: a folder, and
    the pixels to draw on."""
    started = time.perf_counter()
    answer = bundle.answer(pixels, group, cascade)
    latency = 1000 * (time.perf_counter() - started)
    if overlay_on:
        folder, shown = overlay_on
        drawn = overlay(shown, answer.map, bundle.calibration.scale, bundle.decoding.roi)
        _kept(folder, name, ".png", lambda target: target.write_bytes(drawn))
    return {
        **_said(bundle, pixels, answer.score, answer.embedding, group, answer.decided),
        "regions": regions_of(bundle, answer.map, answer.decided.decision) if answer.graph == "full" else None,
        "graph": answer.graph,
        "image_id": name,
        "source": source,
        "latency_ms": latency,
        "map_uri": _write_map(maps, name, answer.map) if maps else None,
    }


def entry(
    bundle: Bundle,
    pixels: np.ndarray,
    score: float,
    embedding: np.ndarray,
    group: str | None = None,
    heat: np.ndarray | None = None,
) -> Scored:
    """What a score record says of a scored picture, whoever scored it; with its *heat* (H, W) also the regions."""
    said = _said(bundle, pixels, score, embedding, group, bundle.decide(score, group))
    return said if heat is None else {**said, "regions": regions_of(bundle, heat, said["decision"])}


def regions_of(bundle: Bundle, heat: np.ndarray, decision: str) -> str | None:
    """Where the defect of an anomalous picture is, as JSON; a normal one has no region. None: the bundle knows no
    limit of heat maps, as those of old versions."""
    scale = bundle.calibration.scale
    return as_text(regions(heat, scale) if decision == "anomalous" else []) if scale else None


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
        "regions": None,
        **statistics(grey(target(pixels)), bundle.decoding.roi),
    }


def _origin(bundle: Bundle, group: str | None) -> dict[str, Any]:
    known = bundle.manifest
    return {"dataset": known.dataset, "group": group, "model": known.detector, "model_version": known.version}


def _write_map(folder: Path, name: str, heat: np.ndarray) -> str:
    return str(_kept(folder, name, ".npy", lambda target: np.save(target, heat)))


def _kept(folder: Path, name: str, suffix: str, write: Callable[[Path], Any]) -> Path:
    """What belongs to the image *name*, below *folder*."""
    # The stem alone may occur in several folders; the hash of the whole path keeps them apart.
    folder.mkdir(parents=True, exist_ok=True)
    name = printable(name)
    stem = Path(name).stem.encode()[:STEM_BYTES].decode(errors="ignore")
    target = folder / f"{stem}-{hashlib.sha256(name.encode()).hexdigest()[:8]}{suffix}"
    with writing(target):
        write(target)
    return target
