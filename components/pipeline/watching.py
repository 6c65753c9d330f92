"""``loupe watch``: a stream in front of a bundle or of a registered model's champion."""

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from PIL import Image

from components.core.artefacts import atomic_dir
from components.core.checks import check_budget
from components.core.errors import DataError
from components.pictures.decoding import DEFAULT
from components.service.streams import stream_of

if TYPE_CHECKING:
    from components.pipeline.params import Params
    from components.service.watch import Counts


def watched(params: "Params", name: str, place: str, source: str | None, once: bool, fps: float | None) -> "Counts":
    """Watch *place* until it ends or the process is told to stop; what is recorded by then is shipped."""
    from components.decision.bundle import Bundle
    from components.pipeline.monitoring import open_champion
    from components.service.line.aside import heard
    from components.service.recorder import Recorder
    from components.service.watch import Watch, logged, source_of
    from components.storage import open_store

    check_budget("--fps", fps)
    folder = Path(name)
    bundle = (
        Bundle.open(folder, params.service.threads, params.service.runs)
        if folder.is_dir()
        else open_champion(params, name)
    )
    stream = stream_of(place, bundle.decoding, fps, once)
    recorder = Recorder(open_store(params.store), params.service)
    recorder.shipper.start()
    stop, known, model = _stopped(), source_of(place, source), folder.resolve().name if folder.is_dir() else name
    try:
        with heard(params.service, known, model) as tell:
            keep = logged(recorder, params.watch.fps, name=None if folder.is_dir() else name, tell=tell)
            return Watch(bundle, known, keep, params.watch).run(stream, stop)
    finally:
        recorder.shipper.stop()


def unpacked(video: Path, out: Path, fps: float | None) -> int:
    """The frames of a video file as PNG files of the new folder *out*, numbered from 0; how many.

    Raises DataError where the file is no video or *out* exists; then nothing is left there.
    """
    check_budget("--fps", fps)
    if out.exists():
        raise DataError(f"{out}: exists; give a folder that does not exist yet")
    if not video.is_file():
        raise DataError(f"{video}: is no file; give a video file")
    number = -1
    with atomic_dir(out) as scratch:
        for number, frame in enumerate(stream_of(str(video), DEFAULT, fps).frames(threading.Event())):
            Image.fromarray(frame.pixels).save(scratch / f"{number:06}.png", compress_level=1)
    return number + 1


def _stopped() -> threading.Event:
    """Set by SIGTERM and by the interrupt of a terminal."""
    stop = threading.Event()

    def told(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, told)
    return stop
