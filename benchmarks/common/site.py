"""Machines of a plant as processes on loopback: a Prefect server and workers, each with a home of its own."""

import os
import random
import socket
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from components.core import system

BIN = Path(sys.executable).parent


PORTS = range(20000, 32000)  # below what the system lends to connections: one that it lends may be taken meanwhile


def free_port() -> int:
    """A port of loopback that nobody listens at now."""
    while True:
        port = random.SystemRandom().choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Site:
    """What is started here works in *project*, and ends with the block, each with all that it has started itself."""

    def __init__(self, folder: Path, project: Path, code: Path) -> None:
        self.folder, self.project = folder, project
        self.started: list[psutil.Popen] = []
        self.environment = os.environ | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(code),
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, where: TracebackType | None) -> None:
        self.end()

    def start(self, name: str, words: list[str], **more: str) -> psutil.Popen:
        """A process with a folder of its own for state and scratch files, and *more* in its environment."""
        (self.folder / name / "tmp").mkdir(parents=True)
        own = {"PREFECT_HOME": str(self.folder / name), "TMPDIR": str(self.folder / name / "tmp")}
        with (self.folder / f"{name}.log").open("w") as log:
            process = psutil.Popen(
                words,
                cwd=self.project,
                env=self.environment | own | more,
                stdout=log,
                stderr=log,
                preexec_fn=system.BEFORE,  # where this process is killed itself, and can end nothing
            )
        self.started.append(process)
        return process

    def serve(self, **more: str) -> None:
        """Start Prefect's server and wait for it; what is started behind it knows its address."""
        port = str(free_port())
        self.environment["PREFECT_API_URL"] = f"http://127.0.0.1:{port}/api"
        self.start("server", [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", port], **more)
        self.answers("server", f"{self.environment['PREFECT_API_URL']}/health")

    def work(self, workers: dict[str, str]) -> dict[str, psutil.Popen]:
        """Start a worker of one run at a time for each name, in the pool beside it, and wait for the pools."""
        command = [str(BIN / "prefect"), "worker", "start", "--type", "process", "--install-policy", "never"]
        command += ["--limit", "1"]
        found = {name: self.start(name, [*command, "--name", name, "--pool", pool]) for name, pool in workers.items()}
        for name, pool in workers.items():
            self.answers(name, f"{self.environment['PREFECT_API_URL']}/work_pools/{pool}")
        return found

    def answers(self, name: str, address: str, seconds: float = 300) -> None:
        """Wait until *address* answers; the log of the process *name* is told where it does not."""
        until = time.monotonic() + seconds
        while True:
            try:
                urllib.request.urlopen(address, timeout=2).close()
                return
            except OSError:
                if time.monotonic() > until:
                    raise RuntimeError(f"{address} does not answer:\n{self.log(name)}") from None
                time.sleep(0.3)

    def log(self, name: str) -> str:
        """What a process has written."""
        return (self.folder / f"{name}.log").read_text()

    def end(self) -> None:
        """End everything, the last first."""
        for process in reversed(self.started):
            kill(process)


def kill(process: psutil.Process) -> set[int]:
    """SIGKILL to a process and all below it, as when a machine loses its power; returns their numbers."""
    try:
        family = [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return set()
    for one in family:
        if one.is_running():
            one.kill()
    psutil.wait_procs(family, timeout=30)
    return {one.pid for one in family}
