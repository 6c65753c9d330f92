"""The object store is away for nearly a minute and the service is killed twice: every answer is in it once."""

import collections
import os
import signal
import threading
import time

import pytest

from components.scorelog import table
from components.storage import open_store
from tests.service.conftest import png

OUTAGE = 48.0  # seconds; each half is longer than the store waits for an answer
PAUSE = 0.1  # seconds between two requests of a client: some twenty a second are load enough


class Clients:
    """Send images until told to end; a request that was not answered is sent again as a new one."""

    def __init__(self, server, count=3):
        self.server, self.answered, self.refused, self.over = server, [], 0, threading.Event()
        self.threads = [threading.Thread(target=self._run, args=(i,)) for i in range(count)]

    def _run(self, number):
        sent, pictures = 0, [png(i) for i in range(7)]
        while not self.over.is_set():
            sent += 1
            try:
                status, answer, _ = self.server.score(
                    pictures[sent % 7], f"?source=line-{number}&name={sent}.png", timeout=5
                )
            except (OSError, ValueError):
                time.sleep(0.1)  # the service is being started again
                continue
            if status == 200:
                self.answered.append(answer["results"][0]["record_id"])
            else:
                self.refused += 1
            time.sleep(PAUSE)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


def stored(address):
    store = open_store(address)
    rows = [r for s in table.sources(store) for r in table.newest_first(store, table.SCORES, s)]
    return collections.Counter(r["record_id"] for r in rows)


@pytest.mark.slow
def test_an_outage_and_two_kills_lose_and_duplicate_nothing(serve, bundle, s3_process, record_property):
    address = "s3://loupe/log"
    server = serve(bundle, store=address, settings={"segment_rows": 50})
    with Clients(server) as clients:
        time.sleep(3)
        os.kill(s3_process.pid, signal.SIGSTOP)
        time.sleep(OUTAGE / 2)
        server.kill()
        server.start()
        time.sleep(OUTAGE / 2)
        during = len(clients.answered)
        os.kill(s3_process.pid, signal.SIGCONT)
        time.sleep(4)
        server.kill()
        server.start()
        time.sleep(3)
    assert server.stop() is not None
    found = stored(address)
    assert during > 200  # the outage did not stop the answers
    assert set(clients.answered) <= set(found)
    assert set(found.values()) == {1}
    unanswered = len(found) - len(set(clients.answered))
    assert unanswered <= 2 * len(clients.threads)  # recorded, and killed before the answer left
    record_property("answered", len(clients.answered))
    record_property("recorded without an answer", unanswered)
