"""The two orchestrations over the same functions: a small matrix through ``dvc repro`` and through Prefect."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from components.core.artefacts import read_json
from components.registry.mlflow import Registry
from components.registry.settings import RegistrySettings
from flows.slot import LIMIT
from flows.train import train

PROJECT = Path(__file__).parents[2]
DETECTORS = ("alps", "patchcore")  # one learns by gradients, one has a bank of features
ENSEMBLE = "alps+patchcore"
VIEW = {"product": {"data": "elpv"}}  # a data set of this name is what the benchmark of DVC brings in
SMALL = {
    "data": {"elpv": {"adapter": "folder", "name": "elpv"}},
    "views": VIEW,
    "pipeline": {"views": ["product"], "detectors": list(DETECTORS), "ensembles": [list(DETECTORS)]},
    "benchmark": {
        "views": ["product"],
        "detectors": list(DETECTORS),
        "sources": {"product": "elpv"},
        "data": {"elpv": "product"},
        "runs": {f"product-{name}": {"view": "product", "detector": name, "method": name} for name in DETECTORS},
    },
    "validation": {"elpv": {"expect_masks": True}},
    "calibration": {"alpha": 0.2},
    "evaluation": {"map_size": 64, "bootstrap": 20},
}


@pytest.fixture(scope="module")
def project(product, tmp_path_factory):
    """A repository with Loupe's own dvc.yaml and code, and one small data set."""
    root = tmp_path_factory.mktemp("project")
    for name in ("components", "flows"):
        shutil.copytree(PROJECT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(PROJECT / "dvc.yaml", root)
    shutil.copytree(product, root / "data" / "elpv")
    values = yaml.safe_load((PROJECT / "params.yaml").read_text()) | SMALL
    values["train"] = {
        "preset": "tiny",
        "moves": "auto",
        "minutes": None,
        "detectors": {name: {} for name in DETECTORS},
    }
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    (root / "prefect.yml").write_text(yaml.safe_dump(values | {"artefacts": "prefect-artefacts"}))
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "add", "-q", "data/elpv"]):
        run(root, *command)
    shutil.copy2(PROJECT / ".dvcignore", root)  # what Python leaves in the folders that stages depend on is nothing
    return root


def run(root: Path, *command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=root, env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def benchmark(project):
    """What ``loupe bench repro`` says: a first ``dvc repro``, a second one, and the plan with one key touched."""
    return run(project, "bash", str(PROJECT / "benchmarks/production/repro.sh"))


@pytest.fixture(scope="module")
def reproduced(project, benchmark):
    assert "Traceback" not in benchmark
    return project


@pytest.fixture(scope="module")
def flown(project):
    before = Path.cwd()
    os.chdir(project)
    try:
        with (
            prefect_test_harness(server_startup_timeout=120),
            temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
        ):
            train(Path("prefect.yml"))
            yield limits()
    finally:
        os.chdir(before)


def limits() -> dict[str, int]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return {found.name: found.limit for found in client.read_global_concurrency_limits()}


@pytest.mark.slow
@pytest.mark.usefixtures("flown")
@pytest.mark.parametrize("detector", DETECTORS)
def test_metrics_are_the_same_byte_for_byte(reproduced, detector):
    below = Path("product") / detector / "evaluation" / "metrics.json"
    one, two = (reproduced / folder / below for folder in ("artefacts", "prefect-artefacts"))
    assert one.read_bytes() == two.read_bytes()
    assert read_json(one)["overall"]["n"] == {"normal": 8, "anomalous": 8}


@pytest.mark.slow
def test_flow_ends_with_a_leaderboard_and_a_champion(project, flown):
    text = (project / "prefect-artefacts" / "leaderboard" / "leaderboard.md").read_text()
    assert all(f"| {name} |" in text for name in (*DETECTORS, ENSEMBLE))
    registry = Registry(RegistrySettings(str(project / "registry")))
    assert len(registry.versions("product")) == 3
    (decision,) = registry.decisions("product")
    assert registry.champion("product") == decision.version
    assert any("graded anomalies" in reason for reason in decision.reasons)
    assert flown[LIMIT] == 1
    run = registry.client.get_run(registry.client.get_model_version("product", decision.version).run_id)
    assert run.data.params["detector"] in (*DETECTORS, ENSEMBLE)
    assert sum(f"{ENSEMBLE}: graded anomalies against good pictures" in reason for reason in decision.reasons) == 1
    assert {"synthetic_auroc", "test_image_auroc", "false_alarm_rate"} <= set(run.data.metrics)


@pytest.mark.slow
def test_second_repro_does_nothing_quickly(benchmark):
    assert "up to date" in benchmark
    times = [60 * int(m) + float(s) for m, s in re.findall(r"^real\s+(\d+)m([\d.]+)s", benchmark, re.MULTILINE)]
    first, second = times
    assert second < max(5, first / 5)


@pytest.mark.slow
def test_touching_one_detectors_key_reruns_that_detector_only(reproduced, benchmark):
    ran = [line for line in benchmark.splitlines() if line.startswith("Running stage")]
    assert ran
    assert all("patchcore" in line for line in ran)
    assert yaml.safe_load((reproduced / "params.yaml").read_text())["train"]["detectors"]["patchcore"] == {}
    assert not (reproduced / "params.before").exists()


@pytest.mark.slow
def test_a_detector_at_a_size_of_its_own_is_a_stage_that_depends_on_its_method(reproduced):
    """Planned and not run: `tests/e2e/test_sizes.py` trains one."""
    file = reproduced / "params.yaml"
    before = file.read_text()
    values = yaml.safe_load(before)
    values["benchmark"]["detectors"] = ["patchcore@96"]
    run_ = {"view": "product", "detector": "patchcore@96", "method": "patchcore"}
    values["benchmark"]["runs"] = {"product-patchcore-96": run_}
    values["train"]["detectors"]["patchcore@96"] = {}
    file.write_text(yaml.safe_dump(values))
    planned = run(reproduced, "dvc", "repro", "--dry", "train@product-patchcore-96")
    known = run(reproduced, "dvc", "status", "train@product-patchcore-96")
    file.write_text(before)
    assert "components.pipeline.stages train product patchcore@96" in planned
    assert "components/detectors/methods/patchcore.py" in known


@pytest.mark.slow
def test_a_broken_cell_stops_no_other_and_is_told_with_its_log(reproduced):
    method = reproduced / "components/detectors/methods/alps.py"
    before = method.read_text()
    method.write_text(f"{before}\nraise RuntimeError('broken on purpose')\n")
    words = [sys.executable, "-m", "benchmarks", "matrix"]
    env = os.environ | {"PYTHONPATH": str(PROJECT)}  # the project's own components come first
    done = subprocess.run(words, cwd=reproduced, env=env, capture_output=True, text=True)
    method.write_text(before)
    assert done.returncode == 1, done.stdout + done.stderr
    log = "runs/matrix/train@product-alps.log"
    assert re.search(rf"\| product-alps \| failed: .*RuntimeError: broken on purpose.* \| \d+ \| {log} \|", done.stdout)
    assert "| product-patchcore | up to date | 0 | - |" in done.stdout
    assert "broken on purpose" in (reproduced / log).read_text()
    assert "1 stages failed" in done.stderr.splitlines()[-1]
