"""Micro-batching: requests that wait at the same time share one run of the session, within a latency bound."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from components.errors import RequestError
from components.scoring.batch import tensor
from components.scoring.bundle import Bundle
from components.scoring.service.settings import ServiceSettings


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


class Batcher:
    """One worker thread that runs batches on what *current* returns: a reload takes effect between two batches."""

    def __init__(self, current: Callable[[], Bundle], settings: ServiceSettings) -> None:
        self.current, self.settings = current, settings
        self._items: queue.Queue[_Item | None] = queue.Queue()
        self._held: _Item | None = None
        self._waiting = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="scorer", daemon=True)
        self.batches = 0

    def start(self) -> None:
        self._thread.start()

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
        while True:
            batch = self._gather()
            if batch is None:
                return
            self._score(batch)
            with self._lock:
                self._waiting -= len(batch)

    def _gather(self) -> list[_Item] | None:
        """The next images of one shape, as many as come within the wait; None at the end."""
        first = self._held or self._items.get()
        self._held = None
        if first is None:
            return None
        batch, until = [first], time.perf_counter() + self.settings.wait_ms / 1000
        while len(batch) < self.settings.batch:
            try:
                item = self._items.get(timeout=max(0.0, until - time.perf_counter()))
            except queue.Empty:
                return batch
            if item is None:
                self._items.put(None)
                return batch
            if item.pixels.shape != first.pixels.shape:
                self._held = item
                return batch
            batch.append(item)
        return batch

    def _score(self, batch: list[_Item]) -> None:
        bundle = self.current()
        try:
            scores, maps, embeddings = bundle.score(np.stack([tensor(item.pixels) for item in batch]))
        except Exception as error:
            for item in batch:
                item.loop.call_soon_threadsafe(_fail, item.future, error)
            return
        self.batches += 1
        now = time.perf_counter()
        for i, item in enumerate(batch):
            done = Scored(bundle, float(scores[i]), maps[i, 0], embeddings[i], 1000 * (now - item.arrived))
            item.loop.call_soon_threadsafe(_resolve, item.future, done)

    def stop(self, timeout: float) -> None:
        """Finish what waits, then end the thread."""
        self._items.put(None)
        self._thread.join(timeout)


def _resolve(future: "asyncio.Future[Any]", value: Scored) -> None:
    if not future.done():  # the client may have gone
        future.set_result(value)


def _fail(future: "asyncio.Future[Any]", error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
