"""Between a stream and the model: a reader in a thread, a few frames that wait, and a count of those that were dropped.

A live stream goes on while the model works. Once too many frames wait all of them are dropped: what is scored then are
whole stretches of consecutive frames, and no window holds two that were not neighbours.
"""

import threading
from collections import deque
from collections.abc import Iterator

import numpy as np

from components.service.streams import Frame, Stream


class Pump:
    """The frames of *stream*, at most *waiting* of them in memory. To be closed, best as a context."""

    def __init__(self, stream: Stream, waiting: int, stop: threading.Event) -> None:
        self.stream, self.waiting, self.stop = stream, waiting, stop
        self.dropped = 0
        self._frames: deque[Frame] = deque()
        self._changed = threading.Condition()
        self._ended, self._gap = False, False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._read, name="frames", daemon=True)

    def __enter__(self) -> "Pump":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(15.0)

    def __iter__(self) -> Iterator[Frame]:
        """Frames until the stream ends or is stopped. Raises what the stream raised."""
        while True:
            with self._changed:
                while not self._frames and not self._ended:
                    self._changed.wait(0.5)
                if not self._frames:
                    if self._error:
                        raise self._error
                    return
                frame = self._frames.popleft()
                self._changed.notify_all()
            yield frame

    def _read(self) -> None:
        try:
            for frame in self.stream.frames(self.stop):
                self._put(frame)
        except BaseException as error:  # the reader's: it is raised where frames are taken
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _put(self, frame: Frame) -> None:
        with self._changed:
            while len(self._frames) >= self.waiting and not self.stop.is_set():
                if self.stream.live:
                    self.dropped += len(self._frames)
                    self._frames.clear()
                    self._gap = True
                    break
                self._changed.wait(0.5)
            self._frames.append(frame._replace(first=frame.first or self._gap))
            self._gap = False
            self._changed.notify_all()


class Ring:
    """The last frames of a clip, as many as a window reaches over."""

    def __init__(self, window: int, stride: int) -> None:
        self.window, self.stride = window, max(1, stride)
        self._frames: deque[np.ndarray] = deque(maxlen=1 + self.stride * max(0, window - 1))

    def add(self, frame: Frame) -> np.ndarray:
        """What the model sees of *frame*: (H, W, 3), or its window (T, H, W, 3), as ``clips.window`` has it."""
        if frame.first or (self._frames and self._frames[-1].shape != frame.pixels.shape):
            self._frames.clear()
        self._frames.append(frame.pixels)
        if not self.window:
            return frame.pixels
        last = len(self._frames) - 1
        at = [max(0, last - self.stride * back) for back in range(self.window - 1, -1, -1)]
        return np.stack([self._frames[i] for i in at])
