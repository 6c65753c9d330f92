"""A stage in a process of its own: it can be killed, and its memory really comes back."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from components.core import system
from components.core.errors import StageError

log = logging.getLogger("loupe")
_RUNNING: "set[subprocess.Popen[str]]" = set()
_WAITING: "list[subprocess.Popen[str]]" = []


def run_stage(
    stage: str, view: str, detector: str, params: Path, data: Path, seconds: float, more: Sequence[str] = ()
) -> None:
    """Run one stage of ``components.pipeline.stages``, with *more* options; it dies with this process.

    Raises StageError.
    """
    words = [stage, view, detector, "--params", str(params), "--data", str(data), "--tethered", *more]
    process = _told(words) or _begun(words)
    _RUNNING.add(process)
    try:
        last = _relay(process, seconds)
    except BaseException:
        _kill(process)
        raise
    finally:
        _RUNNING.discard(process)
        _let_go(process)
    if process.returncode:
        reason = "was killed" if process.returncode < 0 else last
        raise StageError(f"{stage} of {detector} on {view}: {reason} (exit status {process.returncode})")


@contextmanager
def standby(params: Path) -> Iterator[None]:
    """Within, a process waits for the first stage, which will have *params*, and loads what stages load."""
    process = _begun(["--standby", "--params", str(params)])
    _WAITING.append(process)
    try:
        yield
    finally:
        if process in _WAITING:
            _WAITING.remove(process)
            _kill(process)
            _let_go(process)


def _begun(words: Sequence[str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "components.pipeline.stages", *words],
        start_new_session=True,
        preexec_fn=system.BEFORE,
        stdin=subprocess.PIPE,  # it ends with this process, and the stage with it
        stderr=subprocess.PIPE,
        text=True,
    )


def _told(words: Sequence[str]) -> "subprocess.Popen[str] | None":
    """The process that waited for a stage, told to run this one; None where none does."""
    while _WAITING:
        process = _WAITING.pop()
        try:
            assert process.stdin
            process.stdin.write(json.dumps(list(words)) + "\n")
            process.stdin.flush()
            return process
        except OSError:  # it was ended, whatever by
            _let_go(process)
    return None


def _let_go(process: "subprocess.Popen[str]") -> None:
    if process.stdin:
        with suppress(OSError):  # what it was told and has never read
            process.stdin.close()


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
