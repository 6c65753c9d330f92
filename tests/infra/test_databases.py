"""MLflow and Prefect on a real PostgreSQL, with the variables of compose.yaml, and what Loupe does with them."""

import http.client
import json
import os
import subprocess
import time
import urllib.request

import pytest
import yaml

from benchmarks.common.site import free_port
from components.registry.mlflow import Registry
from components.registry.settings import RegistrySettings
from infra.compose.keys import drawn
from tests.infra.postgres import Postgres
from tests.infra.reading import BIN, PROJECT, compose

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def postgres():
    cluster = Postgres()
    try:
        cluster.up()
        for name in ("prefect", "mlflow"):
            cluster.add(name)
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def begin(tmp_path):
    """Start a server of the environment, wait until it answers; it ends with the test."""
    started = []

    def start(words, address, seconds=300, **values):
        log = tmp_path / f"{words[0]}.log"
        environment = {k: v for k, v in os.environ.items() if k not in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL")}
        with log.open("w") as out:
            command = [str(BIN / words[0]), *words[1:]]
            process = subprocess.Popen(
                command, env=environment | values, stdout=out, stderr=out, cwd=tmp_path, start_new_session=True
            )
        started.append(process)
        until = time.monotonic() + seconds
        while time.monotonic() < until and process.poll() is None:
            try:
                urllib.request.urlopen(address, timeout=2).close()
                return
            except OSError:
                time.sleep(0.3)
        raise AssertionError(log.read_text()[-5000:])

    yield start
    for process in started:
        os.killpg(process.pid, 15)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)


def test_models_are_registered_and_promoted_in_mlflow_on_postgresql(postgres, begin, tmp_path):
    assert drawn()["mlflow_db_url"].startswith("postgresql+psycopg://")
    port = free_port()
    told = compose()["services"]["mlflow"]["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"]
    begin(
        ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"],
        f"http://127.0.0.1:{port}/health",
        MLFLOW_BACKEND_STORE_URI=postgres.address("mlflow", "psycopg"),
        MLFLOW_SERVER_ALLOWED_HOSTS=f"{told},127.0.0.1:{port}",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
    )
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("{}")
    place = (tmp_path / "artefacts").as_uri()
    registry = Registry(RegistrySettings(str(tmp_path / "registry"), f"http://127.0.0.1:{port}", place))
    for _ in range(2):
        version = registry.register("housings", bundle, {"a": 1}, {"m": 0.5}, {"t": "x"})
    registry.promote("housings", version, ("test",), {})
    assert registry.champion("housings") == "2"
    assert (registry.fetch("housings", "2", tmp_path / "there") / "manifest.json").read_text() == "{}"
    assert postgres.ask("SELECT count(*) FROM model_versions WHERE name = 'housings'", "mlflow") == "2"
    hosts_that_compose_uses_are_let_in(port)


def hosts_that_compose_uses_are_let_in(port):
    """As containers ask each other, by the name of the service; another name is what an attacker's page would send."""
    for host, status in (("mlflow:5001", 200), ("evil.example", 403)):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/api/2.0/mlflow/registered-models/search?max_results=1", headers={"Host": host})
        assert connection.getresponse().status == status, host
        connection.close()


def test_deployments_are_made_in_prefect_on_postgresql(postgres, begin, tmp_path):
    assert drawn()["prefect_db_url"].startswith("postgresql+asyncpg://")
    port = free_port()
    begin(
        ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
        f"http://127.0.0.1:{port}/api/health",
        PREFECT_SERVER_DATABASE_CONNECTION_URL=postgres.address("prefect", "asyncpg"),
        PREFECT_SERVER_METRICS_ENABLED="true",
        PREFECT_HOME=str(tmp_path / "home"),
    )
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/metrics", timeout=10) as answer:
        assert b"# TYPE" in answer.read()
    deploy(port, tmp_path)
    counted = json.loads(call_api(port, "deployments/filter"))
    known = {d["name"] for d in yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]}
    assert "hourly" in known
    assert {d["name"] for d in counted} == known
    assert {d["pull_steps"][0]["prefect.deployments.steps.set_working_directory"]["directory"] for d in counted} == {
        "/project"
    }
    assert postgres.ask("SELECT count(*) FROM deployment", "prefect") == str(len(known))


def deploy(port, folder):
    """The command of the service `deploy`, where the code is installed and no checkout is at hand."""
    (command,) = [words[2] for words in [compose()["services"]["deploy"]["command"]]]
    environment = os.environ | {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": f"{PROJECT}:{os.environ.get('PYTHONPATH', '')}",
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_HOME": str(folder / "home"),
        "LOUPE_PROJECT": "/project",
    }
    command = command.replace("/opt/loupe-prefect.yaml", str(PROJECT / "prefect.yaml"))
    done = subprocess.run(["sh", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def call_api(port, path):
    request = urllib.request.Request(f"http://127.0.0.1:{port}/api/{path}", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.read()
