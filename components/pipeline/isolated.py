"""A stage in a process of its own: it can be killed, and its memory really comes back."""

import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from components.core import system
from components.core.errors import StageError

log = logging.getLogger("loupe")
_RUNNING: "set[subprocess.Popen[str]]" = set()


def run_stage(
    stage: str, view: str, detector: str, params: Path, data: Path, seconds: float, more: Sequence[str] = ()
) -> None:
    """Run one stage of ``components.pipeline.stages``, with *more* options; it dies with this process.

    Raises StageError.
    """
    command = [sys.executable, "-m", "components.pipeline.stages", stage, view, detector, "--params", str(params)]
    process = subprocess.Popen(
        [*command, "--data", str(data), "--tethered", *more],
        start_new_session=True,
        preexec_fn=system.BEFORE,
        stdin=subprocess.PIPE,  # never written to: it ends with this process, and the stage with it
        stderr=subprocess.PIPE,
        text=True,
    )
    _RUNNING.add(process)
    try:
        last = _relay(process, seconds)
    except BaseException:
        _kill(process)
        raise
    finally:
        _RUNNING.discard(process)
        if process.stdin:
            process.stdin.close()
    if process.returncode:
        reason = "was killed" if process.returncode < 0 else last
        raise StageError(f"{stage} of {detector} on {view}: {reason} (exit status {process.returncode})")


def end_running() -> None:
    """End the stages that other threads of this process run; there they raise StageError."""
    for process in list(_RUNNING):
        _kill(process)


def _relay(process: "subprocess.Popen[str]", seconds: float) -> str:
    """Pass the stage's log lines on; kill it when its time is over. Returns the last line."""
    import threading

    expired = threading.Event()

    def expire() -> None:
        expired.set()
        _kill(process)

    timer = threading.Timer(seconds, expire)
    timer.start()
    last = ""
    try:
        for line in process.stderr or ():
            last = line.rstrip() or last
            log.info("| %s", line.rstrip())
        process.wait()
    finally:
        timer.cancel()
    if expired.is_set():
        raise StageError(f"the stage took longer than {seconds:g} s and was killed; raise the limit or the resources")
    return last


def _kill(process: "subprocess.Popen[str]") -> None:
    system.end_tree(process)
    process.wait()
