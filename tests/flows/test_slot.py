"""The slot for training: one at a time, and a power cut or a killed flow never keeps it."""

import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from contextvars import copy_context
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from benchmarks.common.site import free_port
from components.core.artefacts import locked
from flows import slot

BIN = Path(sys.executable).parent
SHORTEST = 60  # seconds, of a lease that a server accepts
HOLD = f"""
import time
from flows.slot import training_slot
with training_slot({SHORTEST}):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def process(command, environment, **options):
    """A process in a group of its own that is killed, with all it started, at the end of the block."""
    started = subprocess.Popen(command, env=os.environ | environment, start_new_session=True, **options)
    try:
        yield started
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@contextmanager
def holder(environment):
    """Another process that has the slot, killed like the flow of a PC that loses its power."""
    with process([sys.executable, "-c", HOLD], environment, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout.readline() == "held\n"
        yield


@contextmanager
def server(environment):
    address = environment["PREFECT_API_URL"]
    command = [BIN / "prefect", "server", "start", "--port", address.split(":")[2].partition("/")[0]]
    with process(command, environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                assert time.monotonic() < until
                time.sleep(0.2)
        yield


def entered(within):
    """Whether the slot can be had in so many seconds."""
    had = threading.Event()

    def enter():
        with slot.training_slot(SHORTEST):
            had.set()

    # Prefect's temporary settings belong to the context, which a thread does not inherit.
    threading.Thread(target=copy_context().run, args=(enter,), daemon=True).start()
    return had.wait(within)


@pytest.fixture
def alone(tmp_path):
    """No server, and a folder of flows that nobody else uses."""
    with temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: tmp_path}):
        yield {"PREFECT_HOME": str(tmp_path)}


def test_a_killed_flow_gives_the_slot_back(alone):
    with holder(alone):
        assert not entered(within=1)
    assert entered(within=5)


def test_what_is_waited_for_is_said(alone, monkeypatch, caplog):
    monkeypatch.setattr(slot, "PATIENCE", 0.05)
    with locked(Path(alone["PREFECT_HOME"]) / "gpu.lock"):
        assert not entered(within=0.5)
    assert "another training" in caplog.messages[0]
    assert str(Path(alone["PREFECT_HOME"]) / "gpu.lock") in caplog.messages[0]


@pytest.mark.slow
def test_a_server_takes_the_slot_back_after_a_power_cut(tmp_path):
    environment = {
        "PREFECT_HOME": str(tmp_path),
        "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
        "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "1",
    }
    with server(environment), holder(environment):
        pass  # both are killed: the flow first, then the server that would have noticed
    with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}), server(environment):
        assert not entered(within=2)
        assert entered(within=SHORTEST + 120)  # a waiting flow asks again after a while only
