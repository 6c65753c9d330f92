"""Micro-batching: requests that wait at the same time share one run of the session, within a latency bound.

As many scorers as cores run side by side, each on one thread: on CPU that scores up to a third more images per second
than one scorer on all cores. An image that comes alone gets all cores, which answers it sooner.
"""

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from components.core.errors import RequestError
from components.core.runtime import cores
from components.decision.bundle import Bundle
from components.service.settings import ServiceSettings

log = logging.getLogger("loupe")


@dataclass
class Scored:
    """One image's result, with the bundle that made it."""

    bundle: Bundle
    score: float
    heat: np.ndarray  # (H, W)
    embedding: np.ndarray  # (16,)
    latency_ms: float


@dataclass
class _Item:
    pixels: np.ndarray
    arrived: float
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Scored]" = field(init=False)

    def __post_init__(self) -> None:
        self.future = self.loop.create_future()

    def tell(self, how: Callable[["asyncio.Future[Any]", Any], None], what: Any) -> None:
        """Hand the outcome to whoever waits, unless the loop has ended."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(how, self.future, what)


class Batcher:
    """Worker threads that run batches on what *current* returns: a reload takes effect between two batches."""

    def __init__(self, current: Callable[[], Bundle], settings: ServiceSettings) -> None:
        self.current, self.settings = current, settings
        self._items: queue.Queue[_Item | None] = queue.Queue()
        self._waiting = self._running = 0
        self._lock = threading.Lock()
        scorers = range(settings.threads or cores())
        self._threads = [threading.Thread(target=self._run, name=f"scorer-{i}", daemon=True) for i in scorers]
        self.batches = 0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        return self._waiting

    def submit(self, pictures: Sequence[np.ndarray]) -> "list[asyncio.Future[Scored]]":
        """Queue images (H, W, 3) uint8, all or none. Raises RequestError 503 when the queue is full."""
        with self._lock:
            if self._waiting + len(pictures) > self.settings.queue:
                raise RequestError(503, f"{self._waiting} images are waiting already; try again in a second")
            self._waiting += len(pictures)
        loop, now = asyncio.get_running_loop(), time.perf_counter()
        items = [_Item(pixels, now, loop) for pixels in pictures]
        for item in items:
            self._items.put(item)
        return [item.future for item in items]

    def _run(self) -> None:
        held: _Item | None = None
        while True:
            batch, held = self._gather(held)
            if not batch:
                return
            with self._lock:
                self._running += 1
                alone = len(batch) == self._running == self._waiting == 1
            try:
                self._score(batch, narrow=not alone)
            except Exception as error:  # a scorer that ended would leave its place empty for good
                log.error("a batch of %d was not answered: %s: %s", len(batch), type(error).__name__, error)
            with self._lock:
                self._running -= 1
                self._waiting -= len(batch)

    def _gather(self, held: _Item | None) -> tuple[list[_Item], _Item | None]:
        """The next images of one shape, as many as come within the wait (none at the end), and one of another shape."""
        first = held or self._items.get()
        if first is None:
            self._items.put(None)  # for the next scorer
            return [], None
        batch, until, room = [first], time.perf_counter() + self.settings.wait_ms / 1000, self._room()
        while len(batch) < room:
            try:
                item = self._items.get(timeout=max(0.0, until - time.perf_counter()))
            except queue.Empty:
                return batch, None
            if item is None:
                self._items.put(None)
                return batch, None
            if item.pixels.shape != first.pixels.shape:
                return batch, item
            batch.append(item)
        return batch, None

    def _room(self) -> int:
        """How many images a batch may take: without a wait this scorer's share of those that are there."""
        if self.settings.wait_ms:
            return self.settings.batch
        return min(self.settings.batch, -(-(self._items.qsize() + 1) // len(self._threads)))

    def _score(self, batch: list[_Item], narrow: bool) -> None:
        try:
            bundle = self.current()
            scores, maps, embeddings = bundle.score([item.pixels for item in batch], narrow)
        except Exception as error:
            if len(batch) == 1:
                batch[0].tell(_fail, error)
                return
            for item in batch:  # one of them may be to blame: the others are answered
                self._score([item], narrow)
            return
        with self._lock:
            self.batches += 1
        now = time.perf_counter()
        for i, item in enumerate(batch):
            done = Scored(bundle, float(scores[i]), maps[i, 0], embeddings[i], 1000 * (now - item.arrived))
            item.tell(_resolve, done)

    def stop(self, timeout: float) -> None:
        """Finish what waits, then end the threads."""
        self._items.put(None)
        until = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


def _resolve(future: "asyncio.Future[Any]", value: Scored) -> None:
    if not future.done():  # the client may have gone
        future.set_result(value)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
