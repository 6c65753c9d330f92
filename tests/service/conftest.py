"""The service in a process of its own, and requests to it."""

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import psutil
import pytest
from PIL import Image

from benchmarks.common.site import free_port
from tests.conftest import tile
from tests.s3 import keys, moto

BIN = Path(sys.executable).parent
ENDED = (0, -signal.SIGTERM)  # uvicorn raises the signal again when it is done


def listening(port: int, process: subprocess.Popen) -> None:
    """Wait until *process* takes connections."""
    while True:
        assert process.poll() is None
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)


def png(seed: int, side: int = 96) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(tile(seed, side)).save(stream, "png")
    return stream.getvalue()


def scratched(seed: int) -> bytes:
    """A tile with a bright mark, which the bundle calls anomalous."""
    pixels, stream = tile(200 + seed), io.BytesIO()
    pixels[30:50, 20:44] = 250
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


class Server:
    """``loupe serve`` on a bundle folder or a registered name; can be killed and started again."""

    def __init__(self, root: Path, name: str, store: str, settings: dict | None = None, env: dict | None = None):
        self.port, self.root, self.name = free_port(), root, name
        self.environment = os.environ | (env or {})
        service = {"port": self.port, "spool": str(root / "spool"), "ship_seconds": 0.3, "reload_seconds": 0.3}
        self.params = root / "params.yaml"
        self.params.write_text(
            json.dumps(
                {
                    "data": {},
                    "views": {},
                    "store": store,
                    "registry": {"folder": str(root / "registry")},
                    "service": service | (settings or {}),
                }
            )
        )

    def start(self):
        with (self.root / "service.log").open("a") as log:
            command = [sys.executable, "-m", "components.cli", "serve", self.name, "--params", self.params]
            self.process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                if self.request("GET", "/readyz")[0] == 200:
                    return self
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.root / "service.log").read_text())

    def connection(self, timeout):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)

    def request(self, method, path, body=None, headers=None, timeout=20):
        """Status, parsed or raw body, headers."""
        connection = self.connection(timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        kind = answer.headers.get("Content-Type", "")
        return answer.status, json.loads(content) if kind == "application/json" else content, answer.headers

    def until_serves(self, version, limit=20):
        end = time.monotonic() + limit
        while self.request("GET", "/v1/models/current")[1]["version"] != version:
            assert time.monotonic() < end, f"version {version} does not serve"
            time.sleep(0.05)

    def score(self, content, query="", kind="image/png", **headers):
        return self.request("POST", f"/v1/score{query}", content, {"Content-Type": kind} | headers)

    def form(self, files, query=""):
        """*files*: (name in the header as raw bytes, content)."""
        mark = uuid.uuid4().hex.encode()
        parts = b"".join(
            b'--%s\r\nContent-Disposition: form-data; name="images"; filename="%s"\r\n\r\n%s\r\n'
            % (mark, name, content)
            for name, content in files
        )
        return self.score(parts + b"--%s--\r\n" % mark, query, f"multipart/form-data; boundary={mark.decode()}")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise
        return self.process.returncode

    def memory(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss


@pytest.fixture
def serve(tmp_path):
    """Start servers that end with the test."""
    started = []

    def begin(name, store=None, settings=None, env=None, root=None):
        server = Server(root or tmp_path, str(name), store or str(tmp_path / "store"), settings, env)
        started.append(server)
        return server.start()

    yield begin
    for server in started:
        server.stop()


@pytest.fixture(scope="module")
def server(bundle, tmp_path_factory):
    """One server for tests that leave it as it was; small limits."""
    root = tmp_path_factory.mktemp("served")
    settings = {"max_upload_mb": 1.0, "max_files": 4, "body_seconds": 1.0, "max_pixels": 1_000_000}
    server = Server(root, str(bundle), str(root / "store"), settings).start()
    yield server
    assert server.stop() in ENDED


@pytest.fixture
def s3_process(monkeypatch, tmp_path):
    """An S3 server in a process of its own, which can be stopped and continued."""
    port = free_port()
    for name, value in keys(f"http://127.0.0.1:{port}").items():
        monkeypatch.setenv(name, value)
    with moto(port, tmp_path / "s3.log") as process:
        listening(port, process)
        yield process
