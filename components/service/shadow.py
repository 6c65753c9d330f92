"""A challenger that scores the same pictures behind the answers, so that two models are seen side by side.

No answer waits for it: what has been answered is put into a bounded queue, and dropped and counted where that is full.
One thread takes a picture when no picture of the line waits. What it says is in a table of its own, ``shadow``, under
the id of the champion's record: nothing that reads the score log can take it for a decision of the line.
"""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from components.core.errors import LoupeError
from components.decision.batch import entry
from components.decision.bundle import Bundle
from components.pictures.clips import decode
from components.scorelog import table
from components.scorelog.table import Record
from components.scorelog.whose import NAME
from components.service.champion import Champion, Served, give_back_soon, warmed
from components.service.recorder import Recorder

log = logging.getLogger("loupe")
CHALLENGER = "challenger"
LIMIT = "service.max_pixels"
PAIRS = 2000  # pictures that the page compares
SHOWN = 24  # pictures on which the two differ that are listed
PAUSE = 0.02  # seconds to wait while the line is at work
KEEP = ("record_id", "image_id", "source", "scored_at", "score", "p_value", "decision", "threshold")


class Shadow:
    """*where* is a bundle folder, or ``challenger``: the newest version of the registered name that is served."""

    def __init__(
        self, where: str, champion: Champion, recorder: Recorder, busy: Callable[[], bool], places: int, every: float
    ) -> None:
        self.where, self.champion, self.recorder, self.busy, self.every = where, champion, recorder, busy, every
        self._items: queue.Queue[tuple[Record, bytes] | None] = queue.Queue(places)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self._bundle: Bundle | None = None
        self._version: str | None = None
        self._about: tuple[Served, Bundle] | None = None  # which two the pairs are of
        self._asked = -every
        self.pairs: deque[tuple[Record, Record]] = deque(maxlen=PAIRS)  # of the champion, of the challenger
        self.dropped = self.failed = 0

    def start(self) -> None:
        self._thread.start()

    def offer(self, records: Sequence[Record], contents: Sequence[bytes]) -> None:
        """Put answered pictures into the queue, or count them as dropped; never waits."""
        for record, content in zip(records, contents, strict=True):
            try:
                self._items.put_nowait((record, content))
            except queue.Full:
                self.dropped += 1

    def stop(self, timeout: float) -> None:
        """End the thread; what still waits is dropped, since no answer hangs on it."""
        while True:
            try:
                self._items.get_nowait()
                self.dropped += 1
            except queue.Empty:
                break
        self._items.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            while self.busy():
                time.sleep(PAUSE)
            try:
                self._score(*item)
            except Exception as error:  # the thread must live; the line has its answer already
                self.failed += 1
                log.error("the shadow of %s failed: %s: %s", self.where, type(error).__name__, error)

    def _score(self, record: Record, content: bytes) -> None:
        bundle = self.bundle()
        if bundle is None:
            return
        self._begin((self.champion.served, bundle))
        pixels = decode(content, record["image_id"], bundle.decoding, LIMIT)
        scores, _, embeddings = bundle.score([pixels])
        group = record.get("group") if record.get("group") in bundle.calibration.own else None
        told = entry(bundle, pixels, float(scores[0]), embeddings[0], group)
        own = {k: record[k] for k in ("record_id", "scored_at", "image_id", "source", "sha256")}
        found = {**own, **told, NAME: self.champion.registered, "image_uri": ""}
        self.recorder.spools[table.SHADOW].append([found])
        self.pairs.append(({k: record[k] for k in KEEP}, {k: found[k] for k in KEEP}))

    def _begin(self, about: tuple[Served, Bundle]) -> None:
        """Pairs of other models are no pairs of these; a version at another threshold is another one, too."""
        if self._about is None or any(now is not then for now, then in zip(about, self._about, strict=True)):
            self.pairs.clear()
            self._about = about

    def bundle(self) -> Bundle | None:
        """The challenger's bundle, opened when there is a new one; None where there is none."""
        if time.monotonic() - self._asked < self.every:
            return self._bundle
        self._asked, before = time.monotonic(), self._bundle
        try:
            self._open()
            if before is not None and before is not self._bundle:
                give_back_soon()
        except LoupeError as error:
            log.error("the shadow of %s is not opened: %s", self.where, error)
        return self._bundle

    def _open(self) -> None:
        registry = self.champion.registry
        if self.where != CHALLENGER:
            self._bundle = self._bundle or warmed(Path(self.where), 1)
            return
        version = registry.challenger(self.champion.name) if registry else None
        if registry is None or version is None or version == self.champion.served.version:
            self._bundle = self._version = None
        elif version != self._version:
            folder = registry.fetch(self.champion.name, version, self.champion.cache / self.champion.name / version)
            self._bundle, self._version = warmed(folder, 1), version

    def told(self) -> dict[str, Any]:
        """For the page: alarms of both on the same pictures, how often they agree, and where they differ, newest
        first; of the two models that were compared last."""
        bundle, pairs = self._bundle, list(self.pairs)
        differ = [(a, b) for a, b in pairs if a["decision"] != b["decision"]]
        both = [(a, b) for a, b in differ[::-1][:SHOWN]]
        return {
            "where": self.where,
            "version": self._version,
            "detector": bundle.manifest.detector if bundle else None,
            "model_version": bundle.version if bundle else None,
            "n": len(pairs),
            "alarms": [sum(pair[i]["decision"] == "anomalous" for pair in pairs) for i in (0, 1)],
            "agree": len(pairs) - len(differ),
            "waiting": self._items.qsize(),
            "dropped": self.dropped,
            "failed": self.failed,
            "differ": [
                {**a, "other": {k: b[k] for k in ("score", "p_value", "decision", "threshold")}} for a, b in both
            ],
        }
