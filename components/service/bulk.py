"""Bulk scoring: very many images by any number of workers, each image exactly once.

A manifest names the images in shards and never changes. A shard's table lies under a name that follows from its number
and is written whole, so that what is there is done: whoever goes on, behind a kill or on another machine, lists the
tables and scores the shards that have none. Everything travels through object stores; a worker is sent a few words.

<manifest>/manifest.json  names/000000.parquet ...
<out>/job.json  bundle/<model>/...  scores/000000.parquet ...  quarantine.csv  summary.json
"""

import csv
import functools
import io
import json
import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from components.core.artefacts import mapping
from components.core.errors import DataError, ObjectError, PartlyScoredError, SettingsError, StorageError
from components.core.filenames import inside
from components.core.progress import progress
from components.core.records import SCORE_COLUMNS
from components.core.settings import build
from components.decision.batch import row
from components.decision.bundle import Bundle
from components.decision.tables import PROBLEM, write_records
from components.pictures.listing import named_as_picture
from components.service.cluster import spread
from components.storage import Store, open_store

log = logging.getLogger("loupe")
T = TypeVar("T")
MANIFEST, JOB, SUMMARY, QUARANTINE = "manifest.json", "job.json", "summary.json", "quarantine.csv"
SOURCE = "bulk"  # in the score records
FOLDERS: list[tempfile.TemporaryDirectory[str]] = []  # of bundles; gone with the process
FIRST_WAIT, LONGEST_WAIT = 0.5, 15.0  # seconds between two tries of a store that is away


@dataclass(frozen=True)
class Manifest:
    """Which images: *source* is their store, a folder or s3://bucket/prefix."""

    source: str
    images: int
    per_shard: int
    shards: int


@dataclass(frozen=True)
class Job:
    """All that a worker is sent: *manifest* and *out* are stores, *model* the bundle's folder in *out*.

    *patience* is how many seconds a store may be away.
    """

    manifest: str
    out: str
    model: str
    group: str | None = None
    patience: float = 300.0


@dataclass(frozen=True)
class Counts:
    """What became of images."""

    scored: int = 0
    anomalous: int = 0
    quarantined: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))


def wanted(
    images: Sequence[Path] | None, manifest: str | None, others: Mapping[str, object], own: Mapping[str, object]
) -> bool:
    """Whether a manifest is to be scored, and not images. Raises SettingsError where both or neither is given.

    *others* are options that go with images alone, *own* those that go with a manifest alone.
    """
    if bool(images) == bool(manifest):
        raise SettingsError("give images, or the shards of `loupe shards` with --manifest")
    if manifest and (given := [name for name, value in others.items() if value]):
        raise SettingsError(f"{', '.join(given)}: not with --manifest; score a few images by their names for that")
    if images and (given := [name for name, value in own.items() if value is not None]):
        raise SettingsError(f"{', '.join(given)}: with --manifest alone; images are scored in this process")
    return bool(manifest)


def write_manifest(source: str, place: str, per_shard: int = 1000) -> Manifest:
    """Shards of all pictures in *source*, by name, into the store *place*. Raises DataError where one is there."""
    if per_shard < 1:
        raise DataError(f"--per is {per_shard}; give the images of a shard, 1 or more")
    store = open_store(place)
    if store.exists(MANIFEST):
        raise DataError(f"{place}: holds a manifest, which never changes; give another place")
    images = shards = 0
    for shards, names in enumerate(_parts(open_store(source), per_shard), 1):
        store.put(_names(shards - 1), _table([{"image": name} for name in names], ("image",)))
        images += len(names)
    if not images:
        raise DataError(f"{source}: no pictures in there; give a folder or s3://bucket/prefix that has some")
    made = Manifest(open_store(source).address, images, per_shard, shards)
    store.put(MANIFEST, json.dumps(asdict(made), indent=1).encode())  # last: without it there is no manifest
    return made


def read_manifest(place: str) -> Manifest:
    """Raises DataError where *place* holds none."""
    store, advice = open_store(place), "make one with `loupe shards`"
    if not store.exists(MANIFEST):
        raise DataError(f"{place}: holds no manifest; {advice}")
    try:
        found = build(Manifest, mapping(store.get(MANIFEST), MANIFEST), MANIFEST)
        if min(found.images, found.per_shard, found.shards) < 1 or found.shards > found.images:
            raise DataError(f"it counts {found.images} images in {found.shards} shards")
        return found
    except (DataError, SettingsError) as error:
        raise DataError(f"{place}/{MANIFEST}: is no manifest ({error}); {advice}") from error


def bulk(
    manifest: str,
    bundle: Path,
    out: str,
    group: str | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
) -> str:
    """Score what *manifest* names with *bundle* into the store *out*; the sentence that says what became of it.

    Shards that have a table are left alone. Raises DataError, PlaceError, StageError, and PartlyScoredError behind the
    work where images could not be scored.
    """
    job = prepare(manifest, bundle, out, group)
    left = missing(job)
    done = read_manifest(manifest).shards - len(left)
    if done:
        log.info("%s: %d shards are done already, %d are left", out, done, len(left))
    shards = spread(functools.partial(score_shard, job), left, workers, scheduler)
    for _ in progress(shards, f"scoring {len(left)} shards", len(left)):
        pass
    found = finish(job)
    return f"{found.scored} images scored, {found.anomalous} anomalous"


def prepare(manifest: str, bundle: Path, out: str, group: str | None = None, patience: float = 300.0) -> Job:
    """The job, its bundle put where workers find it. Raises DataError where *out* holds tables of another job."""
    read_manifest(manifest)
    opened, store = Bundle.open(bundle), open_store(out)
    opened.require_group(group)
    job = Job(open_store(manifest).address, store.address, opened.manifest.model, group, patience)
    said = json.dumps({k: v for k, v in asdict(job).items() if k not in ("out", "patience")}, indent=1).encode()
    if not store.put_new(JOB, said) and store.get(JOB) != said:
        raise DataError(f"{out}: holds scores of another manifest, model or group; give another place")
    for path in sorted(p for p in bundle.rglob("*") if p.is_file()):
        store.put_new(f"bundle/{job.model}/{path.relative_to(bundle).as_posix()}", path.read_bytes())
    return job


def missing(job: Job) -> list[int]:
    """The shards that have no table yet."""
    there = set(open_store(job.out).keys("scores/"))
    return [number for number in range(read_manifest(job.manifest).shards) if _scores(number) not in there]


def score_shard(job: Job, number: int) -> Counts:
    """Score one shard with one thread; what a worker does. A store that is away is waited for."""
    wait = functools.partial(patiently, seconds=job.patience)
    bundle = wait(lambda: _bundle(job.out, job.model))
    names = wait(lambda: _read(_opened(job.manifest).get(_names(number)), ["image"]))
    source = wait(lambda: _opened(_known(job.manifest).source))
    rows = [_row(bundle, source, str(name["image"]), job, wait) for name in names]
    table = _table(rows, (*SCORE_COLUMNS, PROBLEM))
    wait(lambda: _opened(job.out).put(_scores(number), table))
    return _counts(rows)


def _row(bundle: Bundle, source: Store, name: str, job: Job, wait: Callable[..., Any]) -> dict[str, Any]:
    def read() -> bytes:
        try:
            return bytes(wait(lambda: source.get(name)))
        except ObjectError as error:  # this image alone
            raise DataError(f"{name}: cannot be read ({error})") from error

    return row(bundle, read, name, SOURCE, group=job.group)


def finish(job: Job) -> Counts:
    """Write summary.json and quarantine.csv from the tables. Raises PartlyScoredError where images are quarantined."""
    store, counts, rows = open_store(job.out), Counts(), list[dict[str, Any]]()
    for key in store.keys("scores/"):
        found = _read(store.get(key), ["image_id", "decision", PROBLEM])
        counts, rows = counts + _counts(found), rows + [row for row in found if row[PROBLEM] is not None]
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["image", "reason"])
    table.writerows((row["image_id"], row[PROBLEM]) for row in rows)
    store.put(QUARANTINE, text.getvalue().encode())
    store.put(SUMMARY, json.dumps({**asdict(job), **asdict(counts)}, indent=1).encode())
    if counts.quarantined:
        raise PartlyScoredError(
            f"{counts.quarantined} of {counts.scored + counts.quarantined} images were not scored: "
            f"see {QUARANTINE} in {job.out}"
        )
    return counts


def patiently(call: Callable[[], T], seconds: float) -> T:
    """What *call* returns; while its store is away it is tried again, for so many seconds."""
    until, pause = time.monotonic() + seconds, FIRST_WAIT
    while True:
        try:
            return call()
        except ObjectError:  # the store answers
            raise
        except StorageError as error:
            if time.monotonic() + pause > until:
                raise
            log.warning("%s; tried again in %.0f s", error, pause)
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_WAIT)


# In a worker, which scores many shards of one job: a client of S3 takes longer to make than a picture to score.
_opened = functools.lru_cache(maxsize=4)(open_store)
_known = functools.lru_cache(maxsize=4)(read_manifest)


@functools.lru_cache(maxsize=1)
def _bundle(out: str, model: str) -> Bundle:
    """The bundle that ``prepare`` left in *out*, once in each process, on one thread."""
    store, kept = open_store(out), tempfile.TemporaryDirectory(prefix="loupe-bulk-")
    FOLDERS.append(kept)
    folder = Path(kept.name)
    for key in store.keys(f"bundle/{model}/"):
        path = inside(folder, key.removeprefix(f"bundle/{model}/"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(key))
    return Bundle.open(folder, threads=1)


def _parts(source: Store, size: int) -> Iterator[list[str]]:
    part: list[str] = []
    for name in filter(named_as_picture, source.keys("")):
        part.append(name)
        if len(part) == size:
            yield part
            part = []
    if part:
        yield part


def _counts(rows: list[dict[str, Any]]) -> Counts:
    bad = sum(row[PROBLEM] is not None for row in rows)
    return Counts(len(rows) - bad, sum(row.get("decision") == "anomalous" for row in rows), bad)


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return write_records(rows, Path(folder) / "table.parquet", columns).read_bytes()


def _read(table: bytes, columns: list[str]) -> list[dict[str, Any]]:
    """Raises DataError where it is no table with these columns."""
    import pyarrow.parquet as pq

    from components.scorelog.table import whole  # pyarrow, which scoring alone does without

    with whole("a table of shards"):
        found = pq.read_table(io.BytesIO(table), columns=columns)
        if found.column_names != columns:
            raise DataError(f"a table of shards has the columns {found.column_names}, not {columns}; write it anew")
        return list(found.to_pylist())


def _names(number: int) -> str:
    return f"names/{number:06d}.parquet"


def _scores(number: int) -> str:
    return f"scores/{number:06d}.parquet"
