"""Where frames come from: a folder that fills, a video file, a camera's URL. All give frames one at a time.

A frame says whether a clip begins with it: windows never reach over a gap. Video is decoded by PyAV, which is asked for
only where a file or a URL is watched.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from components.core.errors import DataError, SettingsError
from components.core.secret import public as without_login
from components.pictures.clips import order, pictures_in
from components.pictures.decoding import DEFAULT, Decoding, decode
from components.pictures.framing import ShapeError, framed
from components.service import genicam

log = logging.getLogger("loupe")
WAITS = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # seconds before a camera is asked again, the last one for ever
GIVEN_UP = 5.0  # seconds after which a picture that cannot be read is no longer being written
Open = Callable[[str], Any]  # a URL or a path -> a container of PyAV


class Frame(NamedTuple):
    """One frame, uint8 (H, W, 3) with the region of interest applied; *first*: nothing before it belongs to it."""

    name: str
    pixels: np.ndarray
    first: bool


class Stream(Protocol):
    """Frames in order until there are no more or *stop* is set; *live*: it goes on whether they are taken or not."""

    told: dict[str, int]  # counts of what went wrong

    @property
    def live(self) -> bool: ...

    def frames(self, stop: threading.Event) -> Iterator[Frame]: ...


def stream_of(place: str, rules: Decoding, fps: float | None = None, once: bool = False) -> Stream:
    """The stream at a folder, a file or a URL. Raises DataError where there is none, SettingsError without PyAV."""
    if "://" in place:
        return Camera(place, rules.single, genicam.opened if place.startswith(genicam.SCHEME) else opened)
    path = Path(place)
    if path.is_dir():
        return Folder(path, rules.single, once)
    if path.is_file():
        return Video(path, rules.single, opened, fps)
    raise DataError(f"{place}: is no folder, no video file and no URL such as rtsp://camera/stream; give one of these")


@dataclass
class Folder:
    """Pictures that come into a folder, each once, in the order of their names; *once*: only what is there already.

    A picture that sorts before one that was taken comes too late and is counted. One that cannot be read is tried again
    for a few seconds, as it may be half written.
    """

    folder: Path
    rules: Decoding = DEFAULT
    once: bool = False
    every: float = 0.1  # seconds between two looks
    told: dict[str, int] = field(default_factory=lambda: {"broken": 0, "late": 0})

    @property
    def live(self) -> bool:
        return not self.once

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        last: Path | None = None
        first, seen = True, frozenset[Path]()
        while not stop.is_set():
            found = sorted(pictures_in(self.folder), key=order)
            fresh = [path for path in found if last is None or order(path) > order(last)]
            self.told["late"] += len([p for p in found if p not in seen and p not in fresh and seen])
            for path in fresh:
                pixels = self._read(path, stop)
                last = path
                if pixels is None:
                    self.told["broken"] += 1
                    first = True
                    continue
                yield Frame(path.name, pixels, first)
                first = False
                if stop.is_set():
                    return
            if self.once:
                return
            seen = frozenset(found)
            stop.wait(self.every)

    def _read(self, path: Path, stop: threading.Event) -> np.ndarray | None:
        """The pixels; None of a picture that stays unreadable."""
        while True:
            try:
                return decode(path, path.name, self.rules)
            except DataError as error:
                if self.once or stop.is_set() or _age(path) > GIVEN_UP:
                    log.warning("%s; the next frame begins a new clip", error)
                    return None
            stop.wait(self.every)


@dataclass
class Video:
    """A video file from its beginning to its end; *fps* fewer frames a second are taken where it is given."""

    path: Path
    rules: Decoding
    open: Open
    fps: float | None = None
    live: bool = False
    told: dict[str, int] = field(default_factory=dict)

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        with _container(self.open, str(self.path)) as container:
            yield from _decoded(container, self.path.stem, self.rules, self.fps, stop)


@dataclass
class Camera:
    """A URL that is opened again whenever it ends or fails; each time a new clip begins."""

    url: str
    rules: Decoding
    open: Open
    waits: tuple[float, ...] = WAITS
    live: bool = True
    told: dict[str, int] = field(default_factory=lambda: {"reconnects": 0})

    def frames(self, stop: threading.Event) -> Iterator[Frame]:
        failures = 0
        while not stop.is_set():
            try:
                with _container(self.open, self.url) as container:
                    for frame in _decoded(container, "frame", self.rules, None, stop):
                        failures = 0
                        yield frame
                reason = "it ended"
            except DataError as error:
                reason = str(error)
            if stop.is_set():
                return
            wait = self.waits[min(failures, len(self.waits) - 1)]
            failures, self.told["reconnects"] = failures + 1, self.told["reconnects"] + 1
            log.warning("%s: %s; opened again in %g s", public(self.url), reason, wait)
            stop.wait(wait)


def public(place: str) -> str:
    """A place without the name and the password that a camera's URL may hold."""
    scheme, found, rest = place.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path.partition('?')[0]}" if found else place


def opened(place: str) -> Any:
    """A container of PyAV. Raises SettingsError where PyAV is not installed."""
    try:
        import av
    except ImportError:
        raise SettingsError("video files and cameras need the extra `video`: pip install 'loupe[video]'") from None
    options = {"rtsp_transport": "tcp"} if place.startswith("rtsp") else {}
    return av.open(place, options=options, timeout=(10.0, 10.0) if "://" in place else None)


def _container(open_it: Open, place: str) -> Any:
    try:
        return open_it(place)
    except SettingsError:
        raise
    except Exception as error:  # of the libraries below, each with errors of its own
        raise DataError(f"{public(place)}: cannot be opened as video ({_said(error)}); check the address") from error


def _decoded(container: Any, name: str, rules: Decoding, fps: float | None, stop: threading.Event) -> Iterator[Frame]:
    """Raises DataError where the video breaks off."""
    due, number, frames = 0.0, 0, container.decode(video=0)
    while not stop.is_set():
        try:
            found = next(frames, None)
        except Exception as error:
            raise DataError(f"{name}: cannot be decoded any further ({_said(error)})") from error
        if found is None:
            return
        at = float(found.time or 0.0)
        if fps and at + 1e-9 < due:
            continue
        due = at + 1 / fps if fps else 0.0
        yield Frame(f"{name}-{number:08}", _pixels(found, rules), number == 0)
        number += 1


def _pixels(found: Any, rules: Decoding) -> np.ndarray:
    if found.width * found.height > rules.max_pixels:
        raise DataError(f"{found.width} x {found.height} are more pixels than the limit of {rules.max_pixels}")
    try:
        return framed(np.ascontiguousarray(found.to_ndarray(format="rgb24")), rules.roi)
    except ShapeError as error:
        raise DataError(str(error)) from None


def _said(error: Exception) -> str:
    """PyAV repeats the address, in which a camera's password may be."""
    return without_login(" ".join(str(error).split())) or type(error).__name__


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return GIVEN_UP + 1
