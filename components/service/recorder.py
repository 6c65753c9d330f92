"""The service's memory: score records and labels on disk before anything is answered, the recent ones at hand."""

import hashlib
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from components.core.artefacts import write_flushed
from components.core.errors import RequestError, StorageError
from components.core.system import replace
from components.scorelog import table
from components.scorelog.labels import GIVEN, read_labels
from components.scorelog.shipper import Shipper, clip_key, image_key
from components.scorelog.spool import Spool
from components.scorelog.table import Record
from components.service.settings import ServiceSettings
from components.storage import Store

KNOWN_IMAGES = 20_000


class Recorder:
    """Score log and label table over one local spool and one object store."""

    def __init__(self, store: Store, settings: ServiceSettings) -> None:
        root = Path(settings.spool)
        self.store, self.images = store, root / "images"
        self.images.mkdir(parents=True, exist_ok=True)
        self.spools = {name: Spool(root / name, settings.segment_rows) for name in (table.SCORES, table.LABELS)}
        self.shipper = Shipper(store, self.spools, self.images, settings.ship_seconds)
        self.recent: deque[Record] = deque(maxlen=settings.recent)
        self.labels: dict[str, Record] = {}
        self._kept: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def load(self) -> None:
        """Add to ``recent`` and ``labels`` what the store and the spool hold from before a restart."""
        limit = self.recent.maxlen or 0
        found = self.spools[table.SCORES].pending()
        for source in table.sources(self.store):
            newest = table.newest_first(self.store, table.SCORES, source)
            found += [record for _, record in zip(range(limit), newest, strict=False)]
        labels = read_labels(self.store, self.spools[table.LABELS].pending())
        with self._lock:  # what came in meanwhile is newer and stays
            unique = {record["record_id"]: _shown(record) for record in (*found, *self.recent)}
            self.recent = deque(sorted(unique.values(), key=table.order)[-limit:], maxlen=limit)
            self.labels = labels | self.labels

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
            self.recent.extend(map(_shown, records))

    def label(self, record_id: str, given: str, reviewer: str, at: datetime) -> Record:
        """Store a reviewer's click on a recent record. Raises RequestError."""
        if given not in GIVEN:
            raise RequestError(422, f"label {given!r}: choose one of {', '.join(GIVEN)}")
        record = self.find(record_id)
        label = {k: record[k] for k in ("record_id", "source", "image_id", "sha256")}
        label |= {"labelled_at": at.isoformat(), "label": given, "reviewer": reviewer}
        self.spools[table.LABELS].append([label])
        self.labels[record_id] = label
        return label

    def find(self, record_id: str) -> Record:
        with self._lock:
            for record in reversed(self.recent):
                if record["record_id"] == record_id:
                    return record
        raise RequestError(404, f"record {record_id!r}: not among the latest {self.recent.maxlen} images")

    def select(self, decision: str | None, source: str | None, limit: int) -> list[Record]:
        """The latest records first, with their labels."""
        with self._lock:
            rows = [
                r for r in reversed(self.recent) if decision in (None, r["decision"]) and source in (None, r["source"])
            ]
        return [{**row, "label": self.labels.get(row["record_id"], {}).get("label")} for row in rows[:limit]]

    def image(self, record_id: str) -> bytes:
        """The bytes of a recent image, from local disk or the store."""
        sha256 = self.find(record_id)["sha256"]
        try:
            return (self.images / sha256).read_bytes()
        except FileNotFoundError:
            return self.store.get(image_key(sha256))

    def clip(self, record_id: str) -> bytes:
        """The clip around a recent image of a stream, an animated WebP. Raises RequestError where there is none."""
        key = clip_key(self.find(record_id)["sha256"])
        if not self.store.exists(key):
            raise RequestError(404, f"record {record_id!r}: is no alarm of a stream, and has no clip")
        return self.store.get(key)


def _shown(record: Record) -> Record:
    return {k: v for k, v in record.items() if k != "embedding"}
