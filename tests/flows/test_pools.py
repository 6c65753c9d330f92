"""The training flow over two work pools for real: a server on PostgreSQL, three workers as processes, S3 between them.

One of them is killed in the middle of a training, with all that it started. Another takes the training up, and the
model has the bytes of one that nobody disturbed.
"""

import json
import os
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest
import yaml

from components.core.artefacts import read_json, tree_hash
from components.core.errors import StorageError
from components.storage import open_store
from tests.infra.postgres import Postgres
from tests.infra.reading import BIN
from tests.service.conftest import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
PROJECT = Path(__file__).parents[2]
STORE = "s3://loupe/store"
# The killed one learns by gradients, with many checkpoints; one has a bank; one cannot be made: there are no weights.
SLOW, QUICK, BROKEN = "alps", "patchcore", "padim"
VALUES = {
    "data": {"tiles": {"adapter": "folder", "name": "tiles"}},
    "views": {"line": {"data": "tiles"}},
    "store": STORE,
    "pipeline": {
        "views": ["line"],
        "detectors": [SLOW, QUICK, BROKEN],
        "ensembles": [],
        "lapse_seconds": 20,
        "pools": {"one": {"detectors": [SLOW]}, "two": {"runs": 1, "device": "bench", "detectors": [QUICK, BROKEN]}},
    },
    "train": {
        "preset": "tiny",
        "moves": "none",
        "checkpoint_every": 0.2,
        "detectors": {SLOW: {"epochs": 40}, BROKEN: {"backbone": {"name": "nowhere"}}},
    },
    "calibration": {"alpha": 0.2},
    "evaluation": {"map_size": 64, "bootstrap": 20},
}
WORKERS = {"first": "one", "second": "one", "third": "two"}


class Site:
    """Processes on loopback; `end` kills each with all that it has started, by number."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, []
        self.environment = os.environ | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT),
            "AWS_ACCESS_KEY_ID": "loupe",
            "AWS_SECRET_ACCESS_KEY": "loupe",
            "AWS_DEFAULT_REGION": "us-east-1",
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }

    def start(self, name: str, words: list[str], **more: str) -> psutil.Process:
        """A process with a home and a folder for scratch files of its own, as on a machine of its own."""
        (self.folder / name / "tmp").mkdir(parents=True)
        own = {"PREFECT_HOME": str(self.folder / name), "TMPDIR": str(self.folder / name / "tmp")}
        with (self.folder / f"{name}.log").open("w") as log:
            process = psutil.Popen(
                words, cwd=self.folder / "project", env=self.environment | own | more, stdout=log, stderr=log
            )
        self.started.append(process)
        return process

    def answers(self, name: str, address: str, seconds: float = 300) -> None:
        until = time.monotonic() + seconds
        while True:
            try:
                urllib.request.urlopen(address, timeout=2).close()
                return
            except OSError:
                assert time.monotonic() < until, self.log(name)
                time.sleep(0.3)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()[-8000:]

    def end(self) -> None:
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


@pytest.fixture(scope="module")
def site(product, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    project, cluster, one = folder / "project", Postgres(), Site(folder)
    project.mkdir()
    (project / "params.yaml").write_text(yaml.safe_dump(VALUES))
    words = ["loupe", "data", "add", "tiles", "--adapter", "folder", "--source", str(product)]
    try:
        cluster.up()
        cluster.add("prefect")
        store, server = free_port(), free_port()
        one.environment |= {
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{store}",
            "PREFECT_API_URL": f"http://127.0.0.1:{server}/api",
        }
        one.start("s3", [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(store)])
        one.start(
            "server",
            [str(BIN / "prefect"), "server", "start", "--host", "127.0.0.1", "--port", str(server)],
            PREFECT_SERVER_DATABASE_CONNECTION_URL=cluster.address("prefect", "asyncpg"),
        )
        for command in (["git", "init", "-q"], ["dvc", "init", "-q"], words_of(words)):
            done = subprocess.run(command, cwd=project, env=one.environment, capture_output=True, text=True)
            assert done.returncode == 0, done.stdout + done.stderr
        one.answers("s3", f"http://127.0.0.1:{store}/moto-api/")
        one.answers("server", f"http://127.0.0.1:{server}/api/health")
        yield one
    finally:
        one.end()
        cluster.down()


def words_of(words: list[str]) -> list[str]:
    return [sys.executable, "-m", "components.cli", *words[1:]] if words[0] == "loupe" else words


@pytest.fixture(scope="module")
def flown(site):
    """What the flow said, which runs there were, and who was killed."""
    start = [str(BIN / "prefect"), "worker", "start", "--type", "process", "--install-policy", "never", "--limit", "1"]
    workers = {name: site.start(name, [*start, "--name", name, "--pool", pool]) for name, pool in WORKERS.items()}
    for pool in set(WORKERS.values()):
        until_there(site, f"work_pools/{pool}")
    flow = site.start("flow", words_of(["loupe", "pipeline"]))
    lease = until_under_way(site, flow)
    worker = next(name for name, one in workers.items() if lease["pid"] in below(one))
    killed = kill(workers[worker])
    assert lease["pid"] in killed
    assert flow.wait(timeout=1200) == 1, site.log("flow")
    return {"said": site.log("flow"), "killed": worker, "lease": lease, "runs": runs(site)}


def below(process: psutil.Process) -> set[int]:
    return {one.pid for one in process.children(recursive=True)}


def until_there(site, path: str) -> None:
    site.answers("server", f"{site.environment['PREFECT_API_URL']}/{path}")


def cell_objects(site, end: str) -> dict[str, dict]:
    """By detector, the objects of cells that are called so."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in site.environment.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        store = open_store(STORE)
        for key in list(store.keys("fan/cells/")):
            if key.endswith("/asked.json") and store.exists(key.replace("asked.json", end)):
                detector = json.loads(store.get(key))["detector"]
                found[detector] = json.loads(store.get(key.replace("asked.json", end)))
    return found


def until_under_way(site, flow) -> dict:
    """The lease of the slow training when a checkpoint of it is in the store and it goes on."""
    until = time.monotonic() + 900
    while True:
        assert flow.poll() is None, site.log("flow")
        assert time.monotonic() < until, site.log("flow")
        try:
            state = cell_objects(site, "state.json").get(SLOW, {"files": {}})
        except StorageError:
            state = {"files": {}}
        if ".model.checkpoint/state.safetensors" in state["files"] and not state["done"]:
            return cell_objects(site, "lease.json")[SLOW]
        time.sleep(0.3)


def runs(site) -> dict[str, list[str]]:
    """The states that the runs of each cell have ended in, oldest first."""
    address = f"{site.environment['PREFECT_API_URL']}/flow_runs/filter"
    asked = urllib.request.Request(
        address, b'{"sort": "EXPECTED_START_TIME_ASC"}', {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=20) as answer:
        listed = json.loads(answer.read())
    found: dict[str, list[str]] = {}
    for run in listed:
        found.setdefault(run["name"], []).append(run["state"]["type"])
    return found


def test_a_killed_training_is_taken_up_by_another_worker(site, flown):
    assert flown["runs"][f"line/{SLOW}"] == ["CRASHED", "COMPLETED"]
    lease = cell_objects(site, "lease.json")[SLOW]
    assert lease["attempt"] == 2
    assert lease["run"] != flown["lease"]["run"]
    second = next(site.folder / n for n, pool in WORKERS.items() if pool == "one" and n != flown["killed"])
    assert f"{SLOW}: resumes at" in site.log(second.name)


def test_it_ends_with_the_bytes_of_a_training_that_nobody_disturbed(site, flown):
    project = site.folder / "project"
    (project / "quiet.yaml").write_text(yaml.safe_dump(VALUES | {"artefacts": "quiet"}))
    (project / "quiet/line").mkdir(parents=True)
    for name in ("split", "synthetic"):
        (project / "quiet/line" / name).symlink_to(project / "artefacts/line" / name)
    words = [sys.executable, "-m", "components.pipeline.stages", "train", "line", SLOW, "--params", "quiet.yaml"]
    done = subprocess.run(words, cwd=project, env=site.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resumes" not in done.stderr
    assert tree_hash(project / f"quiet/line/{SLOW}/model") == tree_hash(project / f"artefacts/line/{SLOW}/model")


def test_the_broken_cell_stops_no_other_and_is_told_with_its_log(site, flown):
    project = site.folder / "project"
    assert flown["runs"][f"line/{BROKEN}"] == ["FAILED"]
    assert flown["runs"][f"line/{QUICK}"] == ["COMPLETED"]
    assert f"line/{BROKEN}: " in flown["said"]
    table = (project / "artefacts/leaderboard/leaderboard.md").read_text()
    assert f"| {SLOW} |" in table
    assert f"| {QUICK} |" in table
    assert BROKEN not in table
    assert read_json(project / f"artefacts/line/{SLOW}/evaluation/metrics.json")["overall"]["n"]["normal"] == 8


def test_limits_are_those_of_pool_and_device(site, flown):
    assert flown["runs"]
    address = site.environment["PREFECT_API_URL"]
    with urllib.request.urlopen(f"{address}/work_pools/two", timeout=20) as answer:
        assert json.loads(answer.read())["concurrency_limit"] == 1
    with urllib.request.urlopen(f"{address}/v2/concurrency_limits/device-bench", timeout=20) as answer:
        assert json.loads(answer.read())["limit"] == 1
    assert "gpu" not in site.log("second")
