"""The training flow over two work pools for real: a server on PostgreSQL, three workers as processes, S3 between them.

One of them is killed in the middle of a training, with all that it started. Another takes the training up, and the
model has the bytes of one that nobody disturbed.
"""

import json
import subprocess
import sys
import time
import urllib.request
from functools import cache
from pathlib import Path

import pytest
import yaml

from benchmarks.common.site import BIN, Site, free_port, kill
from components.core.artefacts import read_json, tree_hash
from components.core.errors import StorageError
from components.storage import open_store
from tests.infra.postgres import Postgres

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]
PROJECT = Path(__file__).parents[2]
LOUPE = [sys.executable, "-m", "components.cli"]
STORE = "s3://loupe/store"
# The killed one learns by gradients, for several beats of its lease on a fast machine too; one has a bank; one cannot
# be made: there are no weights.
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
        "detectors": {SLOW: {"epochs": 72}, BROKEN: {"backbone": {"name": "nowhere"}}},
    },
    "calibration": {"alpha": 0.2},
    "evaluation": {"map_size": 64, "bootstrap": 20},
}
WORKERS = {"first": "one", "second": "one", "third": "two"}


@pytest.fixture(scope="module")
def site(product, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    project, cluster = folder / "project", Postgres()
    project.mkdir()
    (project / "params.yaml").write_text(yaml.safe_dump(VALUES))
    try:
        cluster.up()
        cluster.add("prefect")
        with Site(folder, project, PROJECT) as one:
            begin(one, cluster, product)
            yield one
    finally:
        cluster.down()


def begin(site, cluster, product):
    store = str(free_port())
    site.environment |= {
        "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{store}",
        "AWS_ACCESS_KEY_ID": "loupe",
        "AWS_SECRET_ACCESS_KEY": "loupe",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    site.start("s3", [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", store])
    add = [*LOUPE, "data", "add", "tiles", "--adapter", "folder", "--source", str(product)]
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], add):
        done = subprocess.run(command, cwd=site.project, env=site.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    site.serve(PREFECT_SERVER_DATABASE_CONNECTION_URL=cluster.address("prefect", "asyncpg"))
    site.answers("s3", f"http://127.0.0.1:{store}/moto-api/")


@pytest.fixture(scope="module")
def flown(site):
    """What the flow said, which runs there were, and who was killed."""
    workers = site.work(WORKERS)
    flow = site.start("flow", [*LOUPE, "pipeline"])
    lease = until_under_way(site, flow)
    worker = next(name for name, one in workers.items() if lease["pid"] in below(one))
    killed = kill(workers[worker])
    assert lease["pid"] in killed
    assert flow.wait(timeout=1800) == 1, site.log("flow")
    return {"said": site.log("flow"), "killed": worker, "lease": lease, "runs": runs(site)}


def below(process) -> set[int]:
    return {one.pid for one in process.children(recursive=True)}


def cell_objects(site, end: str) -> dict[str, dict]:
    """By detector, the objects of cells that are called so."""
    found, store = {}, opened(site)
    keys = set(store.keys("fan/cells/"))
    for key in sorted(key for key in keys if key.endswith("/asked.json") and key.replace("asked.json", end) in keys):
        detector = json.loads(store.get(key))["detector"]
        found[detector] = json.loads(store.get(key.replace("asked.json", end)))
    return found


@cache
def opened(site):
    """The store of the site: it is asked every moment, and a client for each time would take a core of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in site.environment.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        return open_store(STORE)


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
    first, *others, last = flown["runs"][f"line/{SLOW}"]
    assert (first, last) == ("CRASHED", "COMPLETED")
    lease = cell_objects(site, "lease.json")[SLOW]
    assert lease["attempt"] == 2 + len(others)  # more where the machine is so busy that a beat comes too late
    assert lease["run"] != flown["lease"]["run"]
    second = next(site.folder / n for n, pool in WORKERS.items() if pool == "one" and n != flown["killed"])
    assert f"{SLOW}: resumes at" in site.log(second.name)


def test_it_ends_with_the_bytes_of_a_training_that_nobody_disturbed(site, flown):
    project = site.project
    (project / "quiet.yaml").write_text(yaml.safe_dump(VALUES | {"artefacts": "quiet"}))
    (project / "quiet/line").mkdir(parents=True)
    for name in ("split", "synthetic"):
        (project / "quiet/line" / name).symlink_to(project / "artefacts/line" / name)
    words = [sys.executable, "-m", "components.pipeline.stages", "train", "line", SLOW, "--params", "quiet.yaml"]
    done = subprocess.run(words, cwd=project, env=site.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resumes" not in done.stderr
    assert flown["runs"][f"line/{SLOW}"][-1] == "COMPLETED"
    assert tree_hash(project / f"quiet/line/{SLOW}/model") == tree_hash(project / f"artefacts/line/{SLOW}/model")


def test_the_broken_cell_stops_no_other_and_is_told_with_its_log(site, flown):
    project = site.project
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
