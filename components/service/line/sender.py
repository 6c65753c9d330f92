"""One thread for each output: it reads the journal in order and hands over, again and again, until it is received.

The place behind a message is written down when the receiver has it, so that after a crash the last ones may come twice
and none is left out; the receiver knows them by their id.
"""

import json
import logging
import random
import threading
import time
from contextlib import suppress
from pathlib import Path

from components.core.artefacts import write_json
from components.service.line.journal import Journal, Place
from components.service.line.messages import Message
from components.service.line.settings import OutputSettings
from components.service.line.sinks import RefusedError, Sink

log = logging.getLogger("loupe")
FIRST_WAIT = 0.5  # seconds before a second try; doubled each time
IDLE = 5.0
REFUSED_MB = 20  # of refused messages that are kept for somebody to look at


class Sender:
    """Delivers what an output is configured to hear; ``queued``, ``sent``, ``failed``, ``refused`` are counts."""

    def __init__(self, name: str, sink: Sink, journal: Journal, settings: OutputSettings) -> None:
        self.name, self.sink, self.journal, self.settings = name, sink, journal, settings
        self.sent = self.failed = self.refused = 0  # failed: tries
        self.failing = False
        self.kept = journal.folder / f"{name}.place.json"
        self.place = self._known()
        self._passed, self._dropped = 0, journal.dropped
        self._before = journal.count(self.place) - journal.appended
        self._ending = threading.Event()
        self._until = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"output-{name}", daemon=True)

    def _known(self) -> Place:
        """Where an earlier service ended; a new output hears of what comes from now on."""
        try:
            return Place(*json.loads(self.kept.read_text()))
        except (OSError, ValueError, TypeError):
            return self.journal.end

    @property
    def queued(self) -> int:
        """Messages that wait; counted on disk only at the start, and where some were dropped."""
        if self._dropped != self.journal.dropped:
            self._dropped = self.journal.dropped
            self._before = self.journal.count(self.place) - self.journal.appended + self._passed
        return max(0, self._before + self.journal.appended - self._passed)

    def start(self) -> None:
        """Begin in the background."""
        self._keep()
        self._thread.start()

    def _run(self) -> None:
        while not self._over():
            seen = self.journal.appended  # before it is looked: what comes meanwhile is not slept over
            found = self.journal.read(self.place)
            if not found and self._ending.is_set():
                return
            if not found:
                self.journal.wait(seen, IDLE)
            for message, behind in found:
                if message["kind"] in self.settings.send and not self._delivered(message):
                    return
                self.place = behind
                self._passed += 1
                self._keep()

    def _over(self) -> bool:
        return self._ending.is_set() and (self.failing or time.monotonic() > self._until)

    def _delivered(self, message: Message) -> bool:
        """False where the service ends before anybody has it."""
        tries = refusals = 0
        while not self._over():
            try:
                self.sink.send(message)
            except Exception as error:
                refusals += isinstance(error, RefusedError)
                self._failed(error)
                if refusals >= self.settings.attempts:
                    self._refused(message, error)
                    return True
                self._ending.wait(self._wait(tries))
                tries += 1
            else:
                self._succeeded()
                return True
        return False

    def _wait(self, tries: int) -> float:
        """Longer from try to try, and never the same for two services whose receiver is back."""
        return min(self.settings.longest_wait_s, FIRST_WAIT * 2 ** min(tries, 20)) * random.uniform(0.7, 1.0)

    def _failed(self, error: Exception) -> None:
        self.failed += 1
        if not self.failing:
            log.error("output %s: messages wait (%s: %s)", self.name, type(error).__name__, error)
        self.failing = True

    def _succeeded(self) -> None:
        self.sent += 1
        if self.failing:
            log.info("output %s: receives again", self.name)
        self.failing = False

    def _refused(self, message: Message, error: Exception) -> None:
        self.refused += 1
        self.failing = False
        path = self.journal.folder / f"{self.name}.refused"
        log.error("output %s: refuses %s (%s); it is kept in %s", self.name, message["id"], error, path)
        with suppress(OSError):
            if not path.exists() or path.stat().st_size < REFUSED_MB * 1e6:
                with path.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(message) + "\n")

    def _keep(self) -> None:
        try:
            write_json(self.kept, list(self.place))
        except Exception as error:  # it may come twice then
            log.error("output %s: its place cannot be written down (%s)", self.name, error)

    def stop(self, seconds: float) -> None:
        """Hand over what can be within *seconds*; the rest is sent by the next service."""
        self._until = time.monotonic() + seconds
        self._ending.set()
        self.journal.wake()
        if self._thread.is_alive():
            self._thread.join(seconds + self.settings.timeout_s)
        self.sink.close()


def forget_others(folder: Path, names: set[str]) -> None:
    """Remove the places of outputs that are configured no more: one that comes back begins anew."""
    for path in folder.glob("*.place.json"):
        if path.name.removesuffix(".place.json") not in names:
            path.unlink(missing_ok=True)
