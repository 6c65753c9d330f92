"""``loupe watch``: every frame of a stream is scored; alarms go to the score log, each with the clip around it.

Alarmed frames behind each other are one event: its record is that of its worst frame, its clip all of its frames and
the window before them. Memory is bounded: a few frames that wait, one window, and the frames of one event.
"""

import hashlib
import io
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
from PIL import Image

from components.core.errors import LoupeError
from components.decision.batch import record_of
from components.decision.bundle import Bundle
from components.pictures.clips import target
from components.scorelog.shipper import clip_key, image_key
from components.scorelog.whose import NAME
from components.service.line.aside import Tell, nobody
from components.service.pump import Pump, Ring
from components.service.recorder import Recorder
from components.service.settings import WatchSettings
from components.service.streams import Frame, Stream, public
from components.service.trace import of_name

log = logging.getLogger("loupe")
SIDE = 320  # pixels of the longer side of a clip that is kept for the review page
WATCHED = "watch-"  # what the names of streams begin with
QUALITY = 70  # of its WebP


class Keep(Protocol):
    """What becomes of an event."""

    def __call__(self, event: "Event") -> None: ...


@dataclass
class Event:
    """Alarmed frames behind each other; *record* and *pixels* are of the worst one."""

    record: dict[str, Any]
    pixels: np.ndarray
    frames: list[np.ndarray]
    alarms: int = 1


@dataclass
class Counts:
    """What a watch saw."""

    frames: int = 0
    alarms: int = 0
    events: int = 0
    dropped: int = 0
    seconds: float = 0.0
    told: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        rate = self.frames / self.seconds if self.seconds else 0.0
        more = "".join(f", {count} {what}" for what, count in self.told.items() if count)
        said = f"{self.frames} frames scored ({rate:.0f} a second), {self.dropped} dropped{more}"
        return f"{said}; {self.alarms} alarmed in {self.events} events"


class Watch:
    """One stream in front of one model."""

    def __init__(self, bundle: Bundle, source: str, keep: Keep, settings: WatchSettings) -> None:
        self.bundle, self.source, self.keep, self.settings = bundle, source, keep, settings
        self.ring = Ring(bundle.decoding.window, bundle.decoding.stride)
        self.before: deque[np.ndarray] = deque(maxlen=settings.before)  # small frames
        self.counts = Counts()
        self.event: Event | None = None
        self._quiet = 0

    def run(self, stream: Stream, stop: threading.Event) -> Counts:
        """Score until the stream ends or *stop* is set. Raises DataError where a stream cannot be read."""
        started, said = time.monotonic(), time.monotonic()
        try:
            with Pump(stream, self.settings.waiting, stop) as pump:
                for frame in pump:
                    self._scored(frame)
                    self.counts.dropped, self.counts.told = pump.dropped, dict(stream.told)
                    self.counts.seconds = time.monotonic() - started
                    if time.monotonic() - said >= self.settings.say_seconds:
                        log.info("%s: %s", self.source, self.counts)
                        said = time.monotonic()
                self.counts.dropped, self.counts.told = pump.dropped, dict(stream.told)
        finally:
            self._end()
        return self.counts

    def _scored(self, frame: Frame) -> None:
        if frame.first:
            self._end()
            self.before.clear()
        seen = self.ring.add(frame)
        record: dict[str, Any] = dict(record_of(self.bundle, seen, frame.name, self.source))
        record |= of_name(self.settings.names, frame.name)
        self.counts.frames += 1
        small = shrunk(frame.pixels)
        if record["decision"] == "anomalous":
            self._alarm(record, target(seen), small)
        elif self.event:
            self._quiet += 1
            self.event.frames.append(small)
            if self._quiet >= self.settings.behind:
                self._end()
        self.before.append(small)

    def _alarm(self, record: dict[str, Any], pixels: np.ndarray, small: np.ndarray) -> None:
        self.counts.alarms += 1
        self._quiet = 0
        if self.event is None:
            self.event = Event(record, pixels, [*self.before, small])
            return
        self.event.alarms += 1
        self.event.frames.append(small)
        if record["score"] > self.event.record["score"]:
            self.event.record, self.event.pixels = record, pixels
        if len(self.event.frames) >= self.settings.longest:
            self._end()

    def _end(self) -> None:
        if self.event is None:
            return
        event, self.event, self._quiet = self.event, None, 0
        self.counts.events += 1
        self.keep(event)


def shrunk(pixels: np.ndarray) -> np.ndarray:
    """*pixels* (H, W, 3) with a longer side of SIDE at most."""
    height, width = pixels.shape[:2]
    factor = SIDE / max(height, width)
    if factor >= 1:
        return pixels
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BOX, reducing_gap=2.0))


def webp(frames: list[np.ndarray], fps: float) -> bytes:
    """Frames (H, W, 3) as one animated WebP."""
    first, *rest = [Image.fromarray(frame) for frame in frames]
    stream = io.BytesIO()
    first.save(
        stream, "WEBP", save_all=True, append_images=rest, duration=round(1000 / fps), loop=0, quality=QUALITY, method=0
    )
    return stream.getvalue()


def logged(
    recorder: Recorder,
    fps: float,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    name: str | None = None,
    tell: Tell = nobody,
) -> Keep:
    """Events as rows of the score log, the worst frame as their picture, and their clip beside it in the store.

    *name* is the model's in the registry; *tell* hands the records on to the plant.
    """

    def keep(event: Event) -> None:
        stream = io.BytesIO()
        Image.fromarray(event.pixels).save(stream, "PNG", compress_level=1)
        sha256 = recorder.keep_image(stream.getvalue())
        more = {
            "record_id": uuid.uuid4().hex,
            "scored_at": clock().isoformat(),
            "sha256": sha256,
            "image_uri": image_key(sha256),
            NAME: name,
        }
        recorder.append([record := {**event.record, **more}])
        tell([record])
        try:
            recorder.store.put_new(clip_key(sha256), webp(event.frames, fps))
        except LoupeError as error:  # the record is safe on disk, and ships once the store is back
            log.warning("the clip of %s is not kept: %s", event.record["image_id"], error)

    return keep


def source_of(place: str, given: str | None = None) -> str:
    """The name of a stream in the score log, by which the review page knows that its alarms have clips.

    Where none is given it is of the place, without passwords and fit to name a folder.
    """
    if given:
        return f"{WATCHED}{given}"
    name = public(place).rstrip("/").rpartition("/")[2] or "stream"
    return f"{WATCHED}{name}"[:60] + f"-{hashlib.sha256(place.encode()).hexdigest()[:6]}"
