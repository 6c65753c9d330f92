"""Things that go wrong at a plant, done on purpose; docs/reliability.md lists them with all others."""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

import components
from benchmarks.common.site import free_port
from components.core.artefacts import locked
from components.core.errors import DataError, PlaceError, RegistryError, StorageError
from components.core.records import LOG_COLUMNS
from components.datasets import versions
from components.registry.mlflow import Registry
from components.registry.settings import RegistrySettings
from components.retraining import outcomes
from components.retraining.outcomes import Retrained, claim, outcome_of, store_outcome
from components.scorelog import keeping, table
from components.scorelog.shipper import Shipper
from components.scorelog.spool import Spool
from components.service.champion import Champion
from components.service.recorder import Recorder
from components.service.settings import ServiceSettings
from components.storage import LocalStore, open_store
from components.training.checkpoint import Checkpoint
from flows.temporary import ends_with_us
from tests.conftest import CUT_OFF, DETACHED

AT = datetime(2026, 1, 2, tzinfo=UTC)
ROOT = str(Path(components.__file__).parents[1])


def record(number, at=AT):
    known = {"record_id": f"{number:06d}", "scored_at": (at + timedelta(seconds=number)).isoformat(), "source": "line"}
    return dict.fromkeys(LOG_COLUMNS) | known | {"sha256": f"{number:064d}", "image_id": "x"}


def ids(store):
    return [row["record_id"] for row in table.oldest_first(store, table.SCORES, "line")]


# The registry


def test_a_registry_that_is_down_is_told_and_is_no_empty_one(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    settings = RegistrySettings(str(tmp_path), uri=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RegistryError, match=r"the registry does not answer \(.*\); is it running"):
        Registry(settings)


@pytest.fixture
def registry(tmp_path):
    """A registry whose first version is champion, and a bundle to register."""
    made = Registry(RegistrySettings(str(tmp_path / "registry")))
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/manifest.json").write_text("{}")
    made.register("cells", tmp_path / "bundle", {}, {}, {})
    made.promote("cells", "1", (), {})
    return made


def down(*_, **__):
    from mlflow.exceptions import MlflowException

    raise MlflowException("API request failed: connection refused")


def test_a_registry_that_goes_down_in_a_registration_is_tried_again(registry, tmp_path, monkeypatch):
    with monkeypatch.context() as away:
        away.setattr(registry.client._client, "create_model_version", down)
        with pytest.raises(RegistryError, match="does not answer"):
            registry.register("cells", tmp_path / "bundle", {}, {}, {})
    assert (registry.versions("cells"), registry.champion("cells")) == (["1"], "1")
    assert registry.register("cells", tmp_path / "bundle", {}, {}, {}) == "2"


def test_a_registry_that_is_down_is_not_taken_for_one_without_a_champion(registry, monkeypatch, tmp_path, caplog):
    serving = SimpleNamespace(bundle=None, name="cells", version="1")
    monkeypatch.setattr(Champion, "_open", lambda _: serving)
    champion = Champion("cells", registry, tmp_path / "models")
    monkeypatch.setattr(registry.client._client, "get_model_version_by_alias", down)
    with pytest.raises(RegistryError, match="does not answer"):
        registry.champion("cells")
    assert not champion.refresh()
    assert champion.served is serving
    assert "the champion stays version 1" in caplog.messages[-1]


# Clocks


def test_the_last_click_counts_where_the_clock_was_put_back(tmp_path):
    store = LocalStore(tmp_path / "store")
    recorder = Recorder(store, ServiceSettings(spool=str(tmp_path / "spool")))
    alarm = record(1) | {"decision": "anomalous"}
    recorder.append([alarm])
    recorder.label(alarm, "defect", "anna", AT + timedelta(hours=1))
    recorder.label(alarm, "false_alarm", "anna", AT - timedelta(days=3))
    recorder.shipper.ship()
    again = Recorder(store, ServiceSettings(spool=str(tmp_path / "other")))
    again.load()
    assert again.labels["000001"]["label"] == "false_alarm"


# Two at once


def outcome(action="promote"):
    return Retrained(action, "line-v-00001", "m", "line", "1", "2", ("r",), "p", 0.0, None, "", AT.isoformat())


def retrain_once(folder):
    """The flow's frame: lock, look, claim, train, store."""
    store = LocalStore(folder / "store")
    with locked(folder / "lock"):
        if outcome_of(store, outcome().verdict) is None:
            assert claim(store, outcome().verdict, AT, 6.0) is None
            with (folder / "trained").open("a") as said:
                said.write("x")
            time.sleep(0.2)
            store_outcome(store, outcome())


def test_two_workers_that_race_for_one_retraining_train_once(tmp_path):
    code = "from tests.drills.test_drills import *; retrain_once(Path(sys.argv[1]))"
    command = [sys.executable, "-c", code, str(tmp_path)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for worker in workers:
        _, said = worker.communicate()
        assert worker.returncode == 0, said
    assert (tmp_path / "trained").read_text() == "x"


def test_of_two_machines_the_second_leaves_a_retraining_to_the_first(tmp_path, monkeypatch):
    """Its claim is passed over when it is old; a killed one of the same machine is taken over at once."""
    store, verdict = LocalStore(tmp_path), "line-v-00001"
    assert claim(store, verdict, AT, 6.0) is None
    assert claim(store, verdict, AT, 6.0) is None
    first = outcomes.socket.gethostname()
    monkeypatch.setattr(outcomes.socket, "gethostname", lambda: "other")
    assert claim(store, verdict, AT + timedelta(hours=5), 6.0) == f"{first} since {AT.isoformat()}"
    assert claim(store, verdict, AT + timedelta(hours=7), 6.0) is None
    assert store_outcome(store, outcome("refuse")).action == "refuse"
    assert store_outcome(store, outcome("promote")).action == "refuse"  # the one that is stored


# Damage


def test_a_damaged_object_of_the_score_log_is_told_stops_nothing_and_is_not_cleared_away(tmp_path, caplog):
    store = LocalStore(tmp_path)
    for number in range(3):
        table.write(store, table.SCORES, f"s{number}", [record(number)])
    (key,) = [key for key in store.keys("scores/") if key.endswith("s1.parquet")]
    store.put(key, store.get(key)[:400])
    assert ids(store) == ["000000", "000002"]
    assert f"{key}: is no table any more" in caplog.messages[-1]
    assert keeping.compact(store, table.SCORES, "line", AT + timedelta(days=3)) == 0
    assert store.exists(key)
    with pytest.raises(DataError, match="is no table any more"):
        keeping.forget(store, AT + timedelta(days=3))
    assert store.exists(key)


@pytest.mark.parametrize("name", ["state.safetensors", "position.json"])
def test_a_damaged_checkpoint_is_told_and_training_begins_anew(tmp_path, caplog, name):
    kept = Checkpoint(tmp_path / "checkpoint", "same")
    kept.save({"weight": torch.arange(100.0)}, {"phase": 1})
    assert kept.load()[1] == {"phase": 1}
    path = tmp_path / "checkpoint" / name
    path.write_bytes(path.read_bytes()[:20])
    assert kept.load() is None
    assert "training begins anew" in caplog.messages[-1]


def full(folder):
    """In a process that may write files of 20 kB at most: the same as a disk without room."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    try:
        Checkpoint(folder / "checkpoint", "same").save({"weight": torch.arange(50_000.0)}, {"phase": 2})
    except PlaceError as error:
        (folder / "checkpoint-said").write_text(str(error))
    spool = Spool(folder / "spool")
    spool.append([record(1)])
    try:
        spool.append([record(2) | {"image_id": "x" * 30_000}])
    except StorageError as error:
        (folder / "spool-said").write_text(str(error))
    os._exit(0)


def test_a_full_disk_leaves_the_checkpoint_and_the_records_that_were_answered_for(tmp_path):
    kept = Checkpoint(tmp_path / "checkpoint", "same")
    kept.save({"weight": torch.arange(10.0)}, {"phase": 1})
    process = multiprocessing.get_context("fork").Process(target=full, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert str(tmp_path / "checkpoint") in (tmp_path / "checkpoint-said").read_text()
    assert kept.load()[1] == {"phase": 1}
    assert "check the disk" in (tmp_path / "spool-said").read_text()
    assert [row["record_id"] for row in Spool(tmp_path / "spool").pending()] == ["000001"]


def test_a_damaged_object_of_the_data_cache_is_told_and_never_used(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    versions.begin_repository()
    folder = tmp_path / "data/cells-live"
    folder.mkdir(parents=True)
    (folder / "a.png").write_bytes(b"the picture")
    pin = Path(shutil.copyfile(versions.pin(folder), tmp_path / "kept.dvc"))
    shutil.rmtree(folder)
    assert (versions.restore(pin, folder) / "a.png").read_bytes() == b"the picture"  # its pin was there, it was not
    shutil.rmtree(folder)
    for path in (tmp_path / ".dvc/cache").rglob("*"):
        if path.is_file() and path.read_bytes() == b"the picture":
            path.chmod(0o644)
            path.write_bytes(b"another one")
    with pytest.raises(DataError, match=r"1 files are damaged in DVC's cache .*, first a\.png"):
        versions.restore(pin, folder)
    assert not folder.exists()
    with pytest.raises(DataError, match="neither in the DVC cache nor in a remote"):
        versions.restore(pin, folder)


# The object store


class Flapping(LocalStore):
    """Every other write fails."""

    turn = 0

    def put(self, key, data):
        self.turn += 1
        if self.turn % 2:
            raise StorageError("503 Slow Down")
        super().put(key, data)


def test_a_flapping_store_gets_every_record_once(tmp_path):
    store = Flapping(tmp_path / "store")
    shipper = Shipper(store, {table.SCORES: Spool(tmp_path / "spool", rows=5)}, tmp_path)
    for number in range(40):
        shipper.spools[table.SCORES].append([record(number)])
    tries = 0
    while not shipper.ship():
        tries += 1
        assert tries < 20
    assert tries > 3
    assert ids(store) == [f"{number:06d}" for number in range(40)]


class Unwell(BaseHTTPRequestHandler):
    """An S3 endpoint that is busy at first, and cuts short what it sends."""

    busy = 0

    def reply(self, status, body=b"", length=None):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("ETag", '"tag"')
        self.end_headers()
        self.wfile.write(body)

    def do_HEAD(self):
        self.reply(200)

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        Unwell.busy -= 1
        self.reply(503 if Unwell.busy >= 0 else 200)

    def do_GET(self):
        self.reply(200, b"half of it", 20)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def unwell(s3, monkeypatch):
    server = HTTPServer(("127.0.0.1", 0), Unwell)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    yield open_store(s3)
    server.shutdown()
    server.server_close()


def test_a_busy_store_is_asked_again_and_told_where_it_stays_busy(unwell):
    Unwell.busy = 1
    unwell.put("key", b"x")
    Unwell.busy = 100
    with pytest.raises(StorageError, match=r"put key: .*503"):
        unwell.put("key", b"x")


def test_an_object_that_comes_cut_short_is_no_object(unwell):
    with pytest.raises(StorageError, match=r"get key: .*is the store running"):
        unwell.get("key")


# The machine


def test_a_home_that_cannot_be_written_is_no_hindrance_or_told(bundle, product, tmp_path):
    """Scoring needs none; a flow says in one sentence what it needs."""
    environment = {**os.environ, "HOME": "/dev/null", "PYTHONPATH": ROOT}
    for name in ("LOUPE_CACHE", "XDG_CACHE_HOME", "PREFECT_HOME", "PREFECT_API_URL"):
        environment.pop(name, None)
    command = [sys.executable, "-m", "components.cli", "score", bundle, product / "test/good/000.png"]
    done = subprocess.run([*command, "--out", tmp_path / "s.csv"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    nowhere = temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: "/dev/null/.prefect"})
    with nowhere, pytest.raises(PlaceError, match="set PREFECT_HOME to one that can"):
        ends_with_us()


def test_a_fit_and_a_score_need_no_network_at_all(patchcore, product, tmp_path):
    """The fit that all tests share runs without one, wherever this machine can take it away."""
    if not CUT_OFF:
        pytest.skip("needs unshare of util-linux, and the right to use it")
    assert (patchcore.parent / DETACHED).exists()
    seen = subprocess.run([*CUT_OFF, "cat", "/proc/net/dev"], capture_output=True, text=True).stdout
    assert {line.partition(":")[0].strip() for line in seen.splitlines() if ":" in line} == {"lo"}
    command = [*CUT_OFF, sys.executable, "-m", "components.cli", "score", patchcore / "bundle"]
    words = [product / "test/good/000.png", "--out", tmp_path / "s.json"]
    done = subprocess.run([*command, *words], env={**os.environ, "PYTHONPATH": ROOT}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(json.loads((tmp_path / "s.json").read_text())) == 1


SERVER = """
import sys, time
from flows.temporary import ends_with_us
ends_with_us()
from prefect.server.api.server import SubprocessASGIServer
print(SubprocessASGIServer(int(sys.argv[1]))._run_uvicorn_command().pid, flush=True)
time.sleep(600)
"""


def test_a_temporary_server_that_does_not_answer_says_what_to_do(monkeypatch, tmp_path):
    def begun(*_):
        raise RuntimeError("Timed out while attempting to connect to ephemeral Prefect API server.")

    monkeypatch.setattr(SubprocessASGIServer, "start", begun)
    monkeypatch.setattr(SubprocessASGIServer, "_run_uvicorn_command", lambda _: None)
    with temporary_settings({PREFECT_API_URL: None, PREFECT_HOME: tmp_path}):
        ends_with_us()
        with pytest.raises(PlaceError, match="did not answer in 7 seconds: this machine is busy"):
            SubprocessASGIServer(1).start(7)


def running(pid):
    path = Path(f"/proc/{pid}/stat")
    return path.exists() and path.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.slow
def test_the_temporary_server_of_a_killed_flow_ends_too(tmp_path):
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path), "PYTHONPATH": ROOT}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-c", SERVER, str(free_port())]
    flow = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    server = int(flow.stdout.readline())
    assert running(server)
    flow.kill()
    flow.wait()
    flow.stdout.close()
    until = time.monotonic() + 60
    while running(server):
        assert time.monotonic() < until
        time.sleep(0.1)
