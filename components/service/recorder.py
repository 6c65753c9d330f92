"""The service's memory: score records and labels on disk before anything is answered, the recent ones at hand."""

import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

from components.core.artefacts import write_flushed
from components.core.errors import RequestError, StorageError
from components.core.system import replace
from components.scorelog import table
from components.scorelog.labels import GIVEN, read_labels
from components.scorelog.shipper import Shipper, clip_key, image_key
from components.scorelog.spool import Spool
from components.scorelog.table import LATEST, Record
from components.service.settings import ServiceSettings
from components.storage import Store

KNOWN_IMAGES = 20_000


class Recorder:
    """Score log and label table over one local spool and one object store."""

    def __init__(
        self, store: Store, settings: ServiceSettings, mine: Callable[[Record], bool] = lambda _: True
    ) -> None:
        """*mine* tells which records of the store are of the served product; the others are not remembered."""
        root = Path(settings.spool)
        self.store, self.images, self.mine = store, root / "images", mine
        self.images.mkdir(parents=True, exist_ok=True)
        self.spools = {name: Spool(root / name, settings.segment_rows) for name in table.COLUMNS}
        self.shipper = Shipper(store, self.spools, self.images, settings.ship_seconds)
        self.recent: deque[Record] = deque(maxlen=settings.recent)
        self.labels: dict[str, Record] = {}
        self.loaded = False  # whether what an earlier service left behind is there yet
        self._kept: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def load(self) -> None:
        """Add to ``recent`` and ``labels`` what the store and the spool hold from before a restart."""
        limit = self.recent.maxlen or 0
        found = [record for record in self.spools[table.SCORES].pending() if self.mine(record)]
        for source in table.sources(self.store):
            newest = filter(self.mine, table.newest_first(self.store, table.SCORES, source))
            found += islice(newest, limit)
        found = sorted(found, key=table.order)[-limit:]
        since = table.order(found[0])[0] if found else LATEST
        labels = read_labels(self.store, self.spools[table.LABELS].pending(), since)
        with self._lock:  # what came in meanwhile is newer and stays
            unique = {record["record_id"]: record for record in (*found, *self.recent)}
            self.recent = deque(sorted(unique.values(), key=table.order)[-limit:], maxlen=limit)
            self.labels = labels | self.labels
        self.loaded = True

    def keep_image(self, content: bytes) -> str:
        """Put an image aside for shipping; returns its SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        with self._lock:
            known = sha256 in self._kept
        if not known:
            scratch = self.images / f".{sha256}.{threading.get_ident()}"
            try:
                write_flushed(scratch, content)
                replace(scratch, self.images / sha256)
            except OSError as error:
                raise StorageError(f"{self.images}: a picture cannot be kept ({error}); check the disk") from error
        with self._lock:  # only now: a record must not rely on an image that another thread is still writing
            self._kept[sha256] = None
            if len(self._kept) > KNOWN_IMAGES:
                self._kept.popitem(last=False)
        return sha256

    def append(self, records: Sequence[Record]) -> None:
        """Return when the score records are on disk."""
        self.spools[table.SCORES].append(records)
        with self._lock:
            self.recent.extend(records)

    def append_part(self, row: Record) -> None:
        """Return when the decision on a part is on disk."""
        self.spools[table.PARTS].append([row])

    def label(
        self, record: Record, given: str, reviewer: str, at: datetime, tags: str = "", shapes: str = ""
    ) -> Record:
        """Store a reviewer's click on *record*. Raises RequestError."""
        if given not in GIVEN:
            raise RequestError(422, f"label {given!r}: choose one of {', '.join(GIVEN)}")
        if given == "false_alarm" and record["decision"] != "anomalous":
            raise RequestError(422, f"record {record['record_id']!r}: was no alarm, so it cannot be a false one")
        label = {k: record[k] for k in ("record_id", "source", "image_id", "sha256")}
        label |= {"labelled_at": self._behind(record, at), "label": given, "reviewer": reviewer, "tags": tags}
        label["shapes"] = shapes
        self.spools[table.LABELS].append([label])
        self.labels[record["record_id"]] = label
        return label

    def _behind(self, record: Record, at: datetime) -> str:
        """The time of a click: behind the record and the click before it, also where the clock was put back."""
        earlier = self.labels.get(record["record_id"], {}).get("labelled_at")
        times = [record["scored_at"], *([earlier] if earlier else [])]
        least = max(datetime.fromisoformat(time) for time in times) + timedelta(microseconds=1)
        return max(at, least).isoformat()

    def labelled(self, which: str) -> list[str]:
        """Ids of the records with this label; *which* may also be yes and no: those with any, which no leaves out."""
        kinds = GIVEN[:2] if which in ("yes", "no") else (which,)
        return [i for i, label in list(self.labels.items()) if label["label"] in kinds]

    def mentioned(self, text: str) -> list[str]:
        """Ids of the records to which a reviewer's name or tags hold *text*."""
        text, said = text.casefold(), list(self.labels.items())
        return [i for i, v in said if text in f"{v.get('tags') or ''}\n{v.get('reviewer') or ''}".casefold()]

    def latest(self) -> list[Record]:
        """The records at hand, oldest first."""
        with self._lock:
            return list(self.recent)

    def known(self, record_id: str) -> Record | None:
        """A record at hand; None where there is none of this id."""
        return next((r for r in reversed(self.latest()) if r["record_id"] == record_id), None)

    def embeddings(self, ids: set[str]) -> dict[str, list[float]]:
        """Of the records at hand among *ids*."""
        return {r["record_id"]: r["embedding"] for r in self.latest() if r["record_id"] in ids and r.get("embedding")}

    def find(self, record_id: str) -> Record:
        """A record at hand. Raises RequestError."""
        if record := self.known(record_id):
            return record
        raise RequestError(404, f"record {record_id!r}: is not in the score log")

    def image(self, record: Record) -> bytes:
        """The bytes of a record's image, from local disk or the store. Raises DataError, StorageError."""
        key = image_key(record["sha256"])  # it may come from the store, which others write
        try:
            return (self.images / record["sha256"]).read_bytes()
        except FileNotFoundError:
            return self.store.get(key)

    def clip(self, record: Record) -> bytes:
        """The clip around an image of a stream, an animated WebP. Raises RequestError where there is none."""
        key = clip_key(record["sha256"])
        if not self.store.exists(key):
            raise RequestError(404, f"record {record['record_id']!r}: is no alarm of a stream, and has no clip")
        return self.store.get(key)
