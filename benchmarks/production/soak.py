"""The service for an hour at 80 % of what it can, with all that befalls it meanwhile: reloads, outages and SIGKILLs.

Its model is a run that is registered twice; every twelfth of the time another version is promoted. The object store,
an S3 server of its own, stands still three times for a minute. Two SIGKILLs: one while the store answers, one while it
does not; the service is started again at once. A client whose request was not answered sends it again. In the end every
answer must be in the store once. A latency counts from the moment its request was due, also while nothing answers.
"""

import argparse
import http.client
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil

from benchmarks.common.results import add, commit
from benchmarks.common.runner import options, tell
from benchmarks.common.site import BIN, Site, free_port
from benchmarks.production.load import CLIENTS, closed_loop, post, together
from components.core.artefacts import read_json, write_json
from components.core.checks import check_budget
from components.registry.mlflow import Registry
from components.registry.register import register_run
from components.registry.settings import RegistrySettings
from components.scorelog import table
from components.storage import open_store

NAME, LOG, ROOT = "soak", "s3://soak/log", Path(__file__).resolve().parents[2]
OUTAGE, BEHIND = 60.0, 60.0  # seconds: how long the store stands still, and how long a start is felt
KILLS, OUTAGES, RELOADS = (0.35, 0.51), (0.17, 0.5, 0.83), tuple(n / 12 for n in range(1, 12))  # parts of the time
KINDS = ("reload", "outage", "kill")
PACE = {"ship_seconds": 1.0, "reload_seconds": 1.0, "queue": 256}


class Answer(NamedTuple):
    """One request: when it was due and how long its answer took from then on, in seconds; its record; sendings."""

    due: float
    seconds: float
    record: str
    sent: int


class Plant(Site):
    """A registered model, its service and the object store below one folder."""

    def __init__(self, folder: Path, run: Path, store: str) -> None:
        super().__init__(folder, folder, ROOT)
        self.port, self.store, self.life = free_port(), int(store.rsplit(":", 1)[1]), 0
        self.registry = Registry(RegistrySettings(str(folder / "registry")))
        self.versions = [register_run(self.registry, NAME, _detector(run), run, {}) for _ in range(2)]
        self.promote()
        service = PACE | {"port": self.port, "spool": str(folder / "spool")}
        given = {"data": {}, "views": {}, "store": LOG, "registry": {"folder": str(folder / "registry")}}
        write_json(folder / "params.yaml", given | {"service": service})
        self.s3 = self.start("s3", [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(self.store)])
        self.answers("s3", f"{store}/moto-api/")
        self.begin()

    def promote(self) -> None:
        """Make the other version champion; the service opens it by itself."""
        self.versions.reverse()
        self.registry.promote(NAME, self.versions[0], ("soak",), {})

    def begin(self) -> None:
        """Start the service and wait until it answers."""
        self.life += 1
        words = [sys.executable, "-m", "components.cli", "serve", NAME, "--params", str(self.folder / "params.yaml")]
        self.service = self.start(f"service-{self.life}", words)
        self.answers(f"service-{self.life}", f"http://127.0.0.1:{self.port}/readyz")

    def kill(self) -> None:
        """SIGKILL, and a start at once."""
        self.service.kill()
        self.service.wait(30)
        self.begin()

    def pause(self) -> None:
        """The store takes connections and answers nobody."""
        os.kill(self.s3.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """The store answers again."""
        os.kill(self.s3.pid, signal.SIGCONT)

    def close(self) -> None:
        """SIGTERM: the service sends away what it still holds."""
        self.service.terminate()
        self.service.wait(60)


def _detector(run: Path) -> str:
    return str(read_json(run / "bundle" / "manifest.json")["detector"])


class Span(NamedTuple):
    """From when to when something was felt, in seconds of the soak."""

    what: str
    since: float
    until: float


def befall(plant: Plant, begun: float, seconds: float) -> list[Span]:
    """Let all happen at its time, in this thread: what a thread starts ends with it. ``begun``: of ``perf_counter``."""
    outage, settled = min(OUTAGE, seconds / 20), min(BEHIND, seconds / 20)
    plan: list[tuple[float, str, Callable[[], None], float]] = [
        *((seconds * part, "reload", plant.promote, 2 * PACE["reload_seconds"]) for part in RELOADS),
        *((seconds * part, "outage", plant.pause, outage) for part in OUTAGES),
        *((seconds * part + outage, "", plant.go_on, 0.0) for part in OUTAGES),
        *((seconds * part, "kill", plant.kill, settled) for part in KILLS),
    ]
    spans = []
    for due, what, act, felt in sorted(plan, key=itemgetter(0)):
        time.sleep(max(0.0, begun + due - time.perf_counter()))
        since = time.perf_counter() - begun
        act()
        spans.append(Span(what, since, time.perf_counter() - begun + felt))
    return [span for span in spans if span.what]


class Clients:
    """Requests from a clock; each is sent until it is answered."""

    def __init__(self, port: int, bodies: list[bytes], rate: float, seconds: float) -> None:
        self.bodies, self.rate, self.begun = bodies, rate, time.perf_counter()
        self.answers, self.refused = list[Answer](), 0
        due = np.arange(int(rate * seconds)) / rate
        self.thread = threading.Thread(target=together, args=(port, due, self._send), daemon=True)
        self.thread.start()

    def _send(self, connection: http.client.HTTPConnection, due: float) -> None:
        time.sleep(max(0.0, self.begun + due - time.perf_counter()))
        for sent in range(1, 100_000):
            try:
                status, content = post(connection, self.bodies[int(due * self.rate) % len(self.bodies)], NAME)
            except (OSError, http.client.HTTPException):
                connection.close()  # the next request opens it again
                time.sleep(0.1)
                continue
            if status == 200:
                record = content["results"][0]["record_id"]
                self.answers.append(Answer(due, time.perf_counter() - self.begun - due, record, sent))
                return
            self.refused += 1
            time.sleep(0.1)


class Memory:
    """The resident set of the service in MiB, a row for each of its lives, read from a thread until told to end."""

    def __init__(self, plant: Plant, every: float) -> None:
        self.plant, self.every, self.rows, self.over = plant, every, list[list[int]](), threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()

    def _watch(self) -> None:
        while not self.over.wait(self.every):
            while len(self.rows) < self.plant.life:
                self.rows.append([])
            with suppress(psutil.NoSuchProcess):  # killed a moment ago
                self.rows[-1] += [mb] if (mb := self.plant.service.memory_info().rss >> 20) else []

    def end(self) -> list[list[int]]:
        self.over.set()
        self.thread.join()
        return self.rows


def soaked(plant: Plant, bodies: list[bytes], rate: float, seconds: float) -> dict[str, Any]:
    """All figures of one soak at *rate* requests a second."""
    memory, clients = Memory(plant, seconds / 60), Clients(plant.port, bodies, rate, seconds)
    spans = befall(plant, clients.begun, seconds)
    clients.thread.join()
    rows, happened = memory.end(), Counter(span.what for span in spans)
    plant.close()
    return {
        "minutes": round(seconds / 60, 1),
        "per_second": round(rate, 1),
        **{f"{what}s": happened[what] for what in KINDS},
        **_kept(clients),
        "ms": dict(_latencies(clients.answers, spans)),
        "memory_mb_by_life": rows,
    }


def _kept(clients: Clients) -> dict[str, int]:
    """What became of the requests, held against the store."""
    rows = table.newest_first(open_store(LOG), table.SCORES, NAME)
    found, answered = Counter(row["record_id"] for row in rows), {answer.record for answer in clients.answers}
    lost, doubled = len(answered - set(found)), sum(count > 1 for count in found.values())
    return {
        "answered": len(answered),
        "lost": lost,
        "stored_twice": doubled,
        "stored_without_an_answer": len(set(found) - answered),
        "sent_again": sum(answer.sent > 1 for answer in clients.answers),
        "refused": clients.refused,
    }


def _latencies(answers: list[Answer], spans: list[Span]) -> Iterator[tuple[str, dict[str, float]]]:
    """Percentiles in milliseconds of all, of those that met nothing, and of those that met one thing."""

    def met(answer: Answer, kind: str) -> bool:
        return any(span.what == kind and span.since <= answer.due <= span.until for span in spans)

    yield "all", _percentiles(answers)
    yield "nothing", _percentiles([a for a in answers if not any(met(a, kind) for kind in KINDS)])
    for kind in KINDS:
        yield kind, _percentiles([a for a in answers if met(a, kind)])


def _percentiles(answers: list[Answer]) -> dict[str, float]:
    milliseconds = [1000 * answer.seconds for answer in answers]
    return {f"p{q}": round(float(np.percentile(milliseconds, q)), 1) for q in (50, 95, 99, 100)} if answers else {}


def main(arguments: list[str]) -> None:
    parser = options("soak", __doc__)
    parser.add_argument("run", type=Path, help="what loupe fit left behind")
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, help="requests a second, in place of 80 %% of what is measured first")
    parser.add_argument("--out", type=Path, help="a file of results that this one is put into")
    parser.add_argument("--name", default="soak", help="its name there")
    asked = parser.parse_args(arguments)
    check_budget("--minutes", asked.minutes)
    check_budget("--rate", asked.rate)
    result = measured(asked)
    tell(result, indent=1)
    if asked.out:
        add(asked.out, {asked.name: {**result, "commit": commit()}})
    if result["lost"] or result["stored_twice"]:
        sys.exit(f"{result['lost']} answers are not in the store, {result['stored_twice']} are in it more than once")


def measured(asked: argparse.Namespace) -> dict[str, Any]:
    """The rate that the service keeps, then the soak at 80 % of it."""
    bodies, address = [path.read_bytes() for path in asked.images], f"http://127.0.0.1:{free_port()}"
    keys = dict.fromkeys(("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"), "soak")
    os.environ |= keys | {"AWS_ENDPOINT_URL_S3": address, "AWS_DEFAULT_REGION": "us-east-1"}
    with tempfile.TemporaryDirectory() as folder, Plant(Path(folder), asked.run.resolve(), address) as plant:
        rate = asked.rate or 0.8 * closed_loop(plant.port, bodies, 60 * CLIENTS)
        return soaked(plant, bodies, rate, 60 * asked.minutes)
