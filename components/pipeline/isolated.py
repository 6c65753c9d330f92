"""A stage in a process of its own: it can be killed, and its memory really comes back."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

from components.core.errors import StageError

log = logging.getLogger("loupe")
PR_SET_PDEATHSIG = 1  # of Linux' prctl.h


def run_stage(stage: str, view: str, detector: str, params: Path, data: Path, seconds: float) -> None:
    """Run one stage of ``components.pipeline.stages``; it dies with this process. Raises StageError."""
    command = [sys.executable, "-m", "components.pipeline.stages", stage, view, detector, "--params", str(params)]
    process = subprocess.Popen(
        [*command, "--data", str(data)],
        start_new_session=True,
        preexec_fn=_die_with_parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        last = _relay(process, seconds)
    except BaseException:
        _kill(process)
        raise
    if process.returncode:
        reason = "was killed" if process.returncode < 0 else last
        raise StageError(f"{stage} of {detector} on {view}: {reason} (exit status {process.returncode})")


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
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
