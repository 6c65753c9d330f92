"""From the local spool to the object store, in the background, exactly once."""

import logging
import threading
from pathlib import Path

from components.errors import StorageError
from components.scoring import table
from components.scoring.spool import Spool, read_segment
from components.storage import Store

log = logging.getLogger("loupe")
IMAGES = "images"


def image_key(sha256: str) -> str:
    """Where the bytes of an image lie in the store: once, however often it is scored."""
    return f"{IMAGES}/{sha256[:2]}/{sha256}"


class Shipper:
    """Ships closed segments and their images every *every* seconds; an outage only delays it."""

    def __init__(self, store: Store, spools: dict[str, Spool], images: Path, every: float = 2.0) -> None:
        self.store, self.spools, self.images, self.every = store, spools, images, every
        self._stop = threading.Event()
        self._busy = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)
        self.failing = False
        self.shipped = 0

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            self.ship()

    def ship(self) -> bool:
        """Ship everything recorded so far; False, with a log line at the first time, when the store is out of reach."""
        with self._busy:
            try:
                for name, spool in self.spools.items():
                    spool.close()
                    for segment in spool.closed():
                        self._segment(name, segment)
            except StorageError as error:
                if not self.failing:
                    log.error("the score log waits on local disk: %s", error)
                self.failing = True
                return False
            if self.failing:
                log.info("the object store is back; the score log is shipped")
            self.failing = False
            return True

    def _segment(self, name: str, segment: Path) -> None:
        records = read_segment(segment)
        pictures = {r["sha256"] for r in records if r.get("image_uri")}
        for sha256 in sorted(pictures):
            self._image(sha256)
        table.write(self.store, name, segment.stem, records)
        segment.unlink(missing_ok=True)  # only now: a crash before this line ships the same objects again
        self.shipped += len(records)
        for sha256 in pictures:
            (self.images / sha256).unlink(missing_ok=True)

    def _image(self, sha256: str) -> None:
        """The image's bytes; a copy that was shipped and removed earlier needs no second time."""
        try:
            content = (self.images / sha256).read_bytes()
        except FileNotFoundError:
            return
        self.store.put_new(image_key(sha256), content)

    def stop(self, timeout: float = 10.0) -> None:
        """Stop the thread and ship what is left; what cannot be shipped stays on disk for the next start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self.ship()
