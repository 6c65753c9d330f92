"""The temporary server of a flow that has no other: Prefect leaves it running where its flow is killed; here it ends.

A parent-death signal would not do: it comes when the thread that started the server ends. So a small process waits for
the end of ours, however it comes, at a pipe of which we hold the other end, and then ends the server.
"""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from prefect.settings import PREFECT_API_URL, PREFECT_HOME, PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS

from components.core.errors import PlaceError

# What the stages of a flow that trains load in its process: the slow ones, each of which takes a second and more.
STAGES = ("great_expectations", "components.training.difficulty", "timm", "components.export.trace", "mlflow")
WATCH = """
import os, signal, sys
from pathlib import Path

def begun(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""

pid = int(sys.argv[1])
sys.stdin.read()
if begun(pid) == sys.argv[2]:  # and no later process of the same number
    os.kill(pid, signal.SIGTERM)
"""
_PIPES: list[Any] = []  # open as long as this process lives


def ends_with_us(loads: Sequence[str] = ()) -> None:
    """Call before a flow that runs in the process of a command; a server of one's own is left alone.

    While the server starts, the modules *loads* are imported, which the flow will need. Raises PlaceError where
    Prefect's folder cannot be written: the temporary server would say so in a hundred lines. One that does not answer
    in time is a PlaceError too, raised by the flow.
    """
    if PREFECT_API_URL.value():
        return
    _require(PREFECT_HOME.value())
    from prefect.server.api.server import SubprocessASGIServer

    start = SubprocessASGIServer._run_uvicorn_command
    if getattr(start, "watched", False):
        return

    def started(server: Any) -> "subprocess.Popen[Any]":
        process = start(server)
        watch(process.pid)
        return process

    started.watched = True  # type: ignore[attr-defined]
    SubprocessASGIServer._run_uvicorn_command = started  # type: ignore[assignment,method-assign]
    SubprocessASGIServer.start = in_time(SubprocessASGIServer.start, loads)  # type: ignore[method-assign]


def in_time(start: Callable[..., None], loads: Sequence[str] = ()) -> Callable[..., None]:
    """*start* of a temporary server, which says what to do where the server does not answer in time."""

    def started(server: Any, timeout: int | None = None) -> None:
        loading = threading.Thread(target=_load, args=(loads,), daemon=True)
        loading.start()
        try:
            start(server, timeout)
            loading.join()  # two threads that import the same modules may find them half made
        except RuntimeError as error:  # Prefect's, in a sentence that says nothing of what to do
            limit = timeout or PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS.value()
            raise PlaceError(
                f"the flow's temporary server did not answer in {limit} seconds: this machine is busy, or something is "
                f"wrong in {PREFECT_HOME.value()}; try again, or raise "
                "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS in the environment"
            ) from error

    return started


def _load(names: Sequence[str]) -> None:
    for name in names:
        with suppress(Exception):  # who needs the module says what is wrong with it
            import_module(name)


def _require(home: Path) -> None:
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home):
            pass
    except OSError as error:
        raise PlaceError(
            f"{home}: the flows' folder cannot be written ({error.strerror}); set PREFECT_HOME to one that can"
        ) from error


def watch(pid: int) -> None:
    """End the process *pid* when this one has ended, however that comes."""
    command = [sys.executable, "-I", "-S", "-c", WATCH, str(pid), _begun(pid)]
    quiet = subprocess.DEVNULL
    watcher = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True)
    _PIPES.append(watcher.stdin)


def _begun(pid: int) -> str:
    """When a process was started, in ticks since the machine was; nothing where there is no /proc."""
    path = Path(f"/proc/{pid}/stat")
    return path.read_text().rpartition(")")[2].split()[19] if path.exists() else ""
