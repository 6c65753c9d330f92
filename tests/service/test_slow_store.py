"""A store that answers each request late: pictures do not wait for it, records arrive once, people are told."""

import os
import socket
import threading
import time
from contextlib import contextmanager, suppress

from benchmarks.common.site import free_port
from components.scorelog import table
from components.storage import open_store
from tests.service.conftest import ENDED, png
from tests.service.test_scoring import until

LATE = 1.0  # seconds for each answer
COUNT = 8


def handed_on(source: socket.socket, sink: socket.socket, late: float) -> None:
    """Hand on what comes, each piece *late* seconds after it."""
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            time.sleep(late)
            sink.sendall(piece)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def late(port: int):
    """A port whose connections reach *port*, with every answer LATE seconds late; the requests it let through."""
    listener, seen = socket.create_server(("127.0.0.1", free_port())), []

    def serve() -> None:
        with suppress(OSError):  # closed at the end
            while True:
                ours, _ = listener.accept()
                theirs = socket.create_connection(("127.0.0.1", port))
                seen.append(time.monotonic())
                for ends in ((ours, theirs, 0.0), (theirs, ours, LATE)):
                    threading.Thread(target=handed_on, args=ends, daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1], seen
    listener.close()


def test_pictures_do_not_wait_for_a_slow_store_and_each_record_arrives_once(serve, bundle, s3_process):  # noqa: ARG001
    own = int(os.environ["AWS_ENDPOINT_URL_S3"].rsplit(":", 1)[1])
    open_store("s3://loupe/log").put("first", b"")  # the bucket is there before it is slow
    with late(own) as (port, seen):
        server = serve(bundle, store="s3://loupe/log", env={"AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}"})
        server.score(png(0), "?source=line-1&name=warm.png")
        spent, answered = [], set()
        for number in range(COUNT):
            begun = time.monotonic()
            status, answer, _ = server.score(png(number), f"?source=line-1&name={number}.png")
            spent.append(time.monotonic() - begun)
            assert status == 200
            answered.add(answer["results"][0]["record_id"])
        assert sorted(spent)[COUNT // 2] < LATE  # also on a busy machine the answers do not have the store's pace
        assert seen  # the store was asked meanwhile
        begun = time.monotonic()
        assert len(server.request("GET", "/v1/records?limit=50")[1]["records"]) == COUNT + 1
        assert time.monotonic() - begun < 20
        fast = open_store("s3://loupe/log")
        rows = until(lambda: len(found := list(table.newest_first(fast, table.SCORES, "line-1"))) > COUNT and found, 60)
        assert len({row["record_id"] for row in rows}) == len(rows) == COUNT + 1
        assert answered <= {row["record_id"] for row in rows}
        assert server.stop() in ENDED
