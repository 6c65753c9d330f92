"""The whole loop on the real servers: pictures arrive, drift is noticed, its event retrains, the gate decides."""

import functools
import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from components.cli import app
from components.monitoring.monitor import VERDICTS, unsent
from components.pipeline.params import load_params
from components.registry.mlflow import Registry
from components.retraining.outcomes import outcomes
from components.scorelog import table
from components.storage import open_store
from infra.stack import Stack
from tests.conftest import tile

BIN = Path(sys.executable).parent
CONFIG = {
    "data": {"product": {"adapter": "folder", "name": "product"}},
    "views": {"product": {"data": "product"}},
    "pipeline": {"views": ["product"], "detectors": ["patchcore"]},
    "validation": {"product": {"expect_masks": True}},
    "split": {"calibrate_share": 0.5},
    "train": {"preset": "tiny"},
    "calibration": {"alpha": 0.2},
    "monitor": {"window": 40, "stride": 20, "min_n": 20, "settle_seconds": 0.5},
    "retrain": {
        "min_candidates": 30,
        # Tiny pictures on a busy machine: times and synthetic figures are not what is looked at here.
        "gate": {"latency_factor": 50.0, "auroc_loss": 0.3, "recall_loss": 0.9, "max_contamination": 0.1},
    },
}
CLEAN, POISONED = "line-1", "line-2"


def call(root, *command):
    path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=root, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def new_kind(seed, scratched=False):
    """Another product: the stripes run the other way, brighter; some are scratched."""
    pixels, stream = np.rot90(tile(seed)).copy() // 2 + 100, io.BytesIO()
    if scratched:
        pixels[20:70, 30:60] = 0
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()


def feed(port, pictures, source):
    for number, content in enumerate(pictures):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/score?source={source}&name={number}.png",
            content,
            {"Content-Type": "image/png"},
        )
        urllib.request.urlopen(request, timeout=30).close()


def until(found, limit=480.0):  # a busy machine retrains slowly
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if result := found():
            return result
        time.sleep(1)
    raise AssertionError("not in time")


@pytest.fixture(scope="module")
def project(product, tmp_path_factory):
    root = tmp_path_factory.mktemp("loop")
    shutil.copytree(product, root / "data" / "product")
    (root / "params.yaml").write_text(yaml.safe_dump(CONFIG))
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["dvc", "add", "-q", "data/product"],
        ["loupe", "pipeline"],
    ):
        call(root, *command)
    return root


@pytest.fixture(scope="module")
def stack(project):
    """The stack of a worker that looks for work often; ends what it started and puts the environment back."""
    environment, folder = dict(os.environ), Path.cwd()
    os.environ["PREFECT_WORKER_QUERY_SECONDS"] = "2"
    stack = Stack(project, 2000)
    try:
        stack.up(None, None, {"hourly": 3600.0, "inbox": 3600.0})
        yield stack
    finally:
        stack.down()
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)


def decision(source):
    return next((d for d in outcomes(opened(os.environ["LOUPE_STORE"]), "product") if d.source == source), None)


@functools.cache
def opened(address):
    """The store that is looked into again and again: a client costs more than what it asks."""
    return open_store(address)


def ask(stack, path):
    """What Prefect's server answers to an empty request; asked again while it is busy, as its own client does."""
    url = f"http://127.0.0.1:{stack.ports['prefect']}/api/{path}"
    request = urllib.request.Request(url, b"{}", {"Content-Type": "application/json"})

    def answer():
        try:
            return json.loads(urllib.request.urlopen(request, timeout=60).read())
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            return None

    return until(answer, 120)


def decided(stack, source, pictures):
    """What comes of *pictures* once the monitor's deployment runs, now and not at its hour."""
    feed(stack.ports["service"], pictures, source)
    store = open_store(os.environ["LOUPE_STORE"])
    until(lambda: len(list(table.newest_first(store, table.SCORES, source))) == len(pictures))
    time.sleep(2 * CONFIG["monitor"]["settle_seconds"])
    (hourly,) = [found["id"] for found in ask(stack, "deployments/filter") if found["name"] == "hourly"]
    ask(stack, f"deployments/{hourly}/create_flow_run")
    return until(lambda: decision(source))


@pytest.fixture(scope="module")
def poisoned(stack):
    return decided(stack, POISONED, [new_kind(i, i % 10 < 3) for i in range(60)])


@pytest.fixture(scope="module")
def clean(stack, poisoned):
    assert poisoned.source == POISONED  # it comes first, so that both are judged by the first champion
    return decided(stack, CLEAN, [new_kind(100 + i) for i in range(60)])


def registry(project):
    return Registry(load_params(project / "params.yaml").registry)


def test_every_part_of_the_stack_answers(stack):
    for name, path in (
        ("prefect", "/api/health"),
        ("mlflow", "/health"),
        ("s3", "/moto-api/"),
        ("service", "/healthz"),
    ):
        with urllib.request.urlopen(f"http://127.0.0.1:{stack.ports[name]}{path}", timeout=10) as answer:
            assert answer.status == 200
    names = set(stack.read())
    assert names == {"s3", "prefect", "worker", "mlflow", "pages", "service"}


def test_mlflow_starts_no_processes_for_jobs(stack):
    below = psutil.Process(stack.read()["mlflow"]["pid"]).children(recursive=True)
    assert not [process for process in below if any("huey" in word for word in process.cmdline())]


def test_all_deployments_and_the_automation_are_with_the_server(stack):
    assert {d["name"] for d in ask(stack, "deployments/filter")} == {
        "weekly",
        "hourly",
        "on-drift",
        "inbox",
        "nightly",
        "bulk",
    }
    (automation,) = ask(stack, "automations/filter")
    assert automation["trigger"]["expect"] == ["loupe.drift"]
    assert automation["enabled"]


def test_a_poisoned_pool_is_refused_with_the_reason(poisoned, project):
    assert poisoned.action == "refuse"
    assert any(reason.startswith("failed: estimated share of defects") for reason in poisoned.reasons)
    assert registry(project).champion("product") == "1"
    refused = [d for d in registry(project).decisions("product") if d.action == "refuse"]
    assert [d.version for d in refused] == [poisoned.challenger]


def test_a_clean_pool_ends_in_a_new_champion_that_serves(clean, stack, project):
    assert clean.action == "promote", clean.reasons
    assert registry(project).champion("product") == clean.challenger

    def served():
        with urllib.request.urlopen(f"http://127.0.0.1:{stack.ports['service']}/v1/models/current") as answer:
            return json.loads(answer.read())["version"] == clean.challenger

    assert until(served, 30)
    tags = registry(project).tags("product", clean.challenger)
    assert not Path(tags["data_pin"]).is_absolute()
    assert (registry(project).folder / tags["data_pin"]).exists()
    assert tags["verdict"] == clean.verdict


def test_the_event_started_it_and_is_noted_as_sent(clean):
    store = open_store(os.environ["LOUPE_STORE"])
    sent = {key.rpartition("/")[2].removesuffix(".json") for key in store.keys("monitoring/sent/")}
    assert {clean.verdict, decision(POISONED).verdict} <= sent
    assert unsent(store) == []


def test_a_second_request_for_the_window_changes_nothing(clean, project):
    versions = registry(project).versions("product")
    said = call(project, "loupe", "retrain", clean.verdict)
    assert "promote" in said
    assert registry(project).versions("product") == versions
    assert len(outcomes(open_store(os.environ["LOUPE_STORE"]), "product")) == 2


def test_the_next_retraining_learns_on_from_the_new_version(clean, project):
    from components.pipeline.retraining import Retraining

    job = Retraining.of(load_params(project / "params.yaml"), clean.verdict, project / "data")
    assert job.decided() == clean
    rows = (project / "data" / "product-live").rglob("*.png")
    assert sum("production" in str(path) for path in rows) > 30


def test_models_rollback_and_dashboard_commands(clean, project):
    def loupe(*words):  # in this process, which stands in the project
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    models = json.loads(loupe("models", "product", "--json"))
    assert models["product"]["champion"] == clean.challenger
    loupe("rollback", "product", "--reason", "test")
    assert registry(project).champion("product") == "1"
    loupe("promote", "product", clean.challenger, "--reason", "test")
    made = registry(project).decisions("product")
    assert [d.action for d in made][-2:] == ["rollback", "promote"]
    assert made[-1].reasons == ("by hand: test",)


@pytest.mark.usefixtures("clean")
def test_the_inbox_goes_through_the_command_too(project):
    store = open_store(os.environ["LOUPE_STORE"])
    store.put("inbox/line-9/a.png", new_kind(500))
    call(project, "loupe", "inbox", "product")
    assert [r["image_id"] for r in table.newest_first(store, table.SCORES, "line-9")] == ["a.png"]


@pytest.mark.usefixtures("clean")
def test_down_ends_everything_and_keeps_the_store(stack, project):
    notes = stack.read()
    verdicts = list(open_store(os.environ["LOUPE_STORE"]).keys(f"{VERDICTS}/"))
    stack.down()
    assert not any(stack.alive(note) for note in notes.values())
    kept = open_store(str(project / ".stack" / "s3"))
    assert list(kept.keys(f"{VERDICTS}/")) == verdicts


def test_a_port_that_another_program_has_is_told_before_anything_starts(tmp_path):
    stack = Stack(tmp_path, 9000)
    with socket.socket() as other:
        other.bind(("127.0.0.1", stack.ports["s3"]))
        other.listen()
        with pytest.raises(SystemExit, match=rf"port {stack.ports['s3']} \(s3\): another program listens there"):
            stack.up(None, None, {})
    assert list(tmp_path.iterdir()) == []
