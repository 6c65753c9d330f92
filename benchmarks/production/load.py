"""How much of the bare session's throughput the service keeps, its p99 and its memory.

The bare figure is the best of batch 1 and 8 of the same bundle on the same decoded pictures, all cores, in a process
of its own. The service answers 8 keep-alive clients on loopback, who share the cores with it. Then requests come at
80 % of that rate from a clock, and at last *--requests* more while the service's resident set is read.
"""

import argparse
import http.client
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.common.runner import asking, command, options, tell, told
from benchmarks.common.site import free_port
from components.core.artefacts import write_json

CLIENTS = 8
HEADERS = {"Content-Type": "image/png"}


def bare(bundle: Path, images: list[Path], seconds: float) -> dict[str, float]:
    """Images per second of ``session.run`` alone, by batch size."""
    from components.decision.bundle import Bundle
    from components.pictures.decoding import decode

    opened, result = Bundle.open(bundle), {}
    pictures = [decode(path, rules=opened.decoding) for path in images]
    for size in (1, 8):
        batch = pictures[:size]
        opened.score(batch)
        started, runs = time.perf_counter(), 0
        while time.perf_counter() - started < seconds:
            opened.score(batch)
            runs += 1
        result[str(size)] = runs * size / (time.perf_counter() - started)
    return result


@contextmanager
def serving(bundle: Path, folder: Path, port: int) -> Iterator[psutil.Process]:
    params = folder / "params.yaml"
    params.write_text(
        json.dumps(
            {
                "data": {},
                "views": {},
                "store": str(folder / "store"),
                "service": {"port": port, "spool": str(folder / "spool"), "queue": 256},
            }
        )
    )
    command = [sys.executable, "-m", "components.cli", "serve", str(bundle), "--params", str(params)]
    process = subprocess.Popen(command)
    try:
        while process.poll() is None:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    break
            except OSError:
                time.sleep(0.2)
        if process.returncode is not None:
            raise SystemExit(f"{bundle}: the service ended at once; what it said stands above")
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(30)


def post(connection: http.client.HTTPConnection, body: bytes, source: str = "load") -> tuple[int, dict[str, Any]]:
    """Send one picture; the status and what was answered."""
    connection.request("POST", f"/v1/score?source={source}", body, HEADERS)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def ask(connection: http.client.HTTPConnection, body: bytes) -> float:
    """The seconds of one answer."""
    started = time.perf_counter()
    status, content = post(connection, body)
    assert status == 200, content
    return time.perf_counter() - started


def closed_loop(port: int, bodies: list[bytes], requests: int) -> float:
    """Requests per second when each client sends as soon as it is answered."""
    started = time.perf_counter()
    together(port, range(requests), lambda connection, number: ask(connection, bodies[number % len(bodies)]))
    return requests / (time.perf_counter() - started)


def open_loop(port: int, bodies: list[bytes], rate: float, seconds: float) -> list[float]:
    """Latencies from the moment each request was due, at *rate* per second."""
    latencies, begun = [], time.perf_counter()

    def send(connection: http.client.HTTPConnection, at: float) -> None:
        time.sleep(max(0.0, begun + at - time.perf_counter()))
        ask(connection, bodies[int(at * rate) % len(bodies)])
        latencies.append(time.perf_counter() - begun - at)

    together(port, np.arange(int(rate * seconds)) / rate, send)
    return latencies


def together(port: int, items: Iterable[Any], send: Callable[[http.client.HTTPConnection, Any], object]) -> None:
    """CLIENTS threads that send the next of *items*, each over a connection of its own, until none is left."""
    left, lock = iter(items), threading.Lock()

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port)
        while True:
            with lock:
                item = next(left, None)
            if item is None:
                return
            send(connection, item)

    threads = [threading.Thread(target=client) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(arguments: list[str]) -> None:
    parser = options("load", __doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=0, help="how many more while memory is watched")
    parser.add_argument("--port", type=int, help="a free one unless named")
    parser.add_argument("--bare", action="store_true", help="measure the bare session only")
    asked = parser.parse_args(arguments)
    if asked.bare:
        tell(bare(asked.bundle, asked.images, asked.seconds / 2))
        return
    result = measured(asked)
    tell(result, indent=1)
    if asked.out:
        write_json(asked.out, result)


def measured(asked: argparse.Namespace) -> dict[str, Any]:
    """Rounds of bare session and service in turn, latencies at 80 % of the rate, and the service's memory."""
    port, bodies = asked.port or free_port(), [path.read_bytes() for path in asked.images]
    with tempfile.TemporaryDirectory() as folder, serving(asked.bundle, Path(folder), port) as service:
        rounds = [one_round(asked, port, bodies) for _ in range(asked.rounds)]
        middle = sorted(rounds, key=lambda r: r["ratio"])[len(rounds) // 2]
        latencies = open_loop(port, bodies, 0.8 * middle["service"], asked.seconds)
        memory = watch(service, port, bodies, asked.requests)
    return {
        "rounds": rounds,
        "median_ratio": middle["ratio"],
        "memory_mb": memory,
        "at_80_percent_ms": {f"p{q}": 1000 * float(np.percentile(latencies, q)) for q in (50, 95, 99)},
    }


def one_round(asked: argparse.Namespace, port: int, bodies: list[bytes]) -> dict[str, Any]:
    """The bare session in a process of its own, then the service, so that a busy neighbour meets both."""
    alone = told(asking(command("load", asked.bundle, *asked.images, "--bare", "--seconds", asked.seconds)))
    served = closed_loop(port, bodies, int(asked.seconds * max(alone.values())))
    found = {"bare": alone, "service": served, "ratio": served / max(alone.values())}
    sys.stderr.write(f"{found}\n")
    return found


def watch(service: psutil.Process, port: int, bodies: list[bytes], requests: int) -> list[int]:
    """The resident set in MiB before and after each twentieth of *requests*."""
    found = [service.memory_info().rss >> 20]
    for _ in range(20 if requests else 0):
        closed_loop(port, bodies, requests // 20)
        found.append(service.memory_info().rss >> 20)
    return found
