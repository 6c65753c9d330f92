"""``loupe watch``: a stream in front of a bundle or of a registered model's champion."""

import signal
import threading
from pathlib import Path
from types import FrameType

from components.core.checks import check_budget
from components.decision.bundle import Bundle
from components.pipeline.monitoring import open_champion
from components.pipeline.params import Params
from components.service.recorder import Recorder
from components.service.streams import stream_of
from components.service.watch import Counts, Watch, logged, source_of
from components.storage import open_store


def watched(params: Params, name: str, place: str, source: str | None, once: bool, fps: float | None) -> Counts:
    """Watch *place* until it ends or the process is told to stop; what is recorded by then is shipped."""
    check_budget("--fps", fps)
    folder = Path(name)
    bundle = Bundle.open(folder, params.service.threads) if folder.is_dir() else open_champion(params, name)
    stream = stream_of(place, bundle.decoding, fps, once)
    recorder = Recorder(open_store(params.store), params.service)
    recorder.shipper.start()
    stop = _stopped()
    try:
        keep = logged(recorder, params.watch.fps)
        return Watch(bundle, source_of(place, source), keep, params.watch).run(stream, stop)
    finally:
        recorder.shipper.stop()


def _stopped() -> threading.Event:
    """Set by SIGTERM and by the interrupt of a terminal."""
    stop = threading.Event()

    def told(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        stop.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, told)
    return stop
