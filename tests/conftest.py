"""Shared pictures and the environment of all tests."""

import contextlib
import functools
import gc
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import components  # the environment switches, before anything else is imported
from components.core.artefacts import locked, tree_hash
from components.core.system import collect_rarely
from tests.s3 import keys

# Sums in another order, multiplied by training, move golden numbers; and two test processes share the cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # in the processes that tests start as well
# What runs of this user left behind is nothing to the tests, nor the other way round; set before Prefect is imported.
FLOWS = tempfile.TemporaryDirectory(prefix="loupe-flows-")
os.environ["PREFECT_HOME"] = FLOWS.name
if "PYTEST_XDIST_WORKER" not in os.environ:  # the workers inherit the cache: what is in it is computed once for all
    CACHE = tempfile.TemporaryDirectory(prefix="loupe-cache-")
    os.environ["LOUPE_CACHE"] = CACHE.name


TESTS = Path(__file__).parent
LONG = (  # in this order; test_slot ends its server, which Prefect goes on asking for the slot: behind test_both_ways
    "loop/test_loop.py",
    "flows/test_pools.py",
    "contract/test_detectors.py",
    "flows/test_both_ways.py",
    "flows/test_slot.py",
    "contract/test_mutants.py",
    "unit/training/test_several.py",
    "service/test_nothing_lost.py",
    "e2e/test_fit.py",
    "e2e/test_sizes.py",
    "e2e/test_tool_pages.py",
    "unit/detectors/test_new_detector.py",
    "unit/test_fuzz.py",
    "unit/training/test_memory_model.py",
    "e2e/test_tutorial.py",
    "e2e/test_video_run.py",
    "infra/test_databases.py",
    "e2e/test_wheel.py",
    "e2e/test_like_windows.py",
    "e2e/test_killed_fit.py",
    "e2e/test_examples.py",
    "e2e/test_ensemble.py",
    "e2e/test_region.py",
    "unit/calibration/test_cascade.py",
    "unit/monitoring/test_monitoring.py",
    "unit/pipeline/test_joined_views.py",
    "unit/export/test_parity.py",
    "unit/backbones/test_backbones.py",
    "service/test_review_page.py",
    "drills/test_drills.py",
    "unit/calibration/test_folds.py",
    "service/test_bulk.py",
    "e2e/test_square_by_square.py",
    "service/test_bad_input.py",
    "unit/benchmarks/test_mechanisms.py",
    "unit/retraining/test_candidates.py",
    "e2e/test_torchless.py",
)


def pytest_addoption(parser) -> None:
    parser.addoption("--golden", action="store_true", help="store the golden numbers of today: make golden NAME=...")


DISK_GB = 3.0  # what all tests together need below the folder of scratch files: they have left up to 2


def pytest_sessionstart(session) -> None:
    """A run of all tests would fail in hundreds of places behind minutes where the disk is full."""
    several = session.config.getoption("dist", "no") != "no" and not hasattr(session.config, "workerinput")
    if several and (lacking := lack_of_disk(Path(tempfile.gettempdir()))):
        pytest.exit(lacking, returncode=1)


def lack_of_disk(folder: Path) -> str:
    """What to do where too little is free for all tests; "" where there is room."""
    free = shutil.disk_usage(folder).free / 1e9
    if free >= DISK_GB:
        return ""
    return f"{folder}: {free:.1f} GB are free and the tests need {DISK_GB:g}; make room, or set TMPDIR to another disk"


# Who asks for one of these waits for a training, for what comes before it, or for the export of a graph.
TRAINED = {"patchcore", "bundle", "other_bundle", "without_test", "store", "run", "stages", "trained", "fitted"}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items) -> None:
    """Mark what is slow; and files that take long begin first, or a worker would wait for the other at the end."""
    for item in items:
        if TRAINED & set(item.fixturenames):
            item.add_marker("slow")
    long = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: long.get(os.path.relpath(item.path, TESTS), len(LONG)))


def pytest_collection_finish() -> None:
    """What is imported by now stays: the collector looks for rubbish among half a million objects of it no more."""
    gc.collect()
    gc.freeze()
    collect_rarely()


APART = ("tests/contract/test_detectors.py",)  # what is parametrised alike is trained once and goes to one worker


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With ``--dist loadfile`` a file goes to one worker, but one of APART for each detector by itself."""
    if config.getvalue("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file, _, test = nodeid.partition("::")
            return f"{file}[{test.partition('[')[2]}" if file in APART else file

    return Scheduling(config, log)


# Set where all tools are installed: a test that is skipped because one is missing fails there.
EVERY_TOOL = "LOUPE_TEST_EVERY_TOOL"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):  # noqa: ARG001
    return judged((yield))


def judged(report):
    """The report of a test; one that was skipped for want of a tool has failed where all are to be there."""
    said = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    if os.environ.get(EVERY_TOOL) and (said.startswith("Skipped: needs ") or "could not import" in said):
        report.outcome, report.longrepr = "failed", f"{said}; install it, as .ci/run does"
    return report


def pytest_runtest_setup(item) -> None:
    if item.get_closest_marker("slow"):
        _operators_read_once()
    if "mlflow.store.db.utils" in sys.modules:
        _tables_made_once()


@functools.cache
def _operators_read_once() -> None:
    """For each graph torch's exporter parses its five hundred operators anew; here once."""
    with contextlib.suppress(ImportError, AttributeError):  # another torch has it elsewhere, and is only slower
        from torch.onnx._internal.exporter._registration import onnxscript_apis

        lazy = type(onnxscript_apis).__getattr__  # a module that is imported when it is asked for something
        onnxscript_apis.get_torchlib_ops = functools.cache(lambda: lazy(onnxscript_apis, "get_torchlib_ops")())


@functools.cache
def _tables_made_once() -> None:
    """MLflow makes the tables of each new registry by seventy migrations, in most of a second; the next ones are copies
    of the first."""
    from mlflow.store.db import utils

    make, lock, known = utils._initialize_tables, threading.Lock(), sqlite3.connect(":memory:", check_same_thread=False)

    def made(engine):
        if engine.dialect.name != "sqlite":
            make(engine)
            return
        with lock, contextlib.closing(sqlite3.connect(engine.url.database)) as own:
            if known.execute("select count(*) from sqlite_master").fetchone() == (0,):
                make(engine)
                own.backup(known)
            else:
                known.backup(own)

    utils._initialize_tables = made


@pytest.fixture(autouse=True)
def _own_log(monkeypatch):
    """Each test hears Loupe's log once, whatever a flow or a command has done to the logger in this process before."""
    log = logging.getLogger("loupe")
    monkeypatch.setattr(log, "handlers", [])
    monkeypatch.setattr(log, "propagate", True)
    monkeypatch.setattr(log, "disabled", False)
    level = log.level
    log.setLevel(logging.NOTSET)  # by its method: a logger remembers which levels are heard
    yield
    log.setLevel(level)


def tile(seed: int, side: int = 96) -> np.ndarray:
    """A grey machined surface: stripes, a soft shade and noise; uint8 (side, side, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    grey = 120 + 20 * np.sin(40 * x + rng.uniform(0, 6)) + 15 * y + rng.normal(0, 4, (side, side))
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture(scope="session")
def tiles() -> list[np.ndarray]:
    return [tile(seed) for seed in range(24)]


@pytest.fixture(scope="session")
def shared(pytestconfig, tmp_path_factory) -> Path:
    """A folder of all workers of this test run, for what is written by ``once``."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if hasattr(pytestconfig, "workerinput") else base) / "shared"


def once(folder: Path, make) -> Path:
    """*folder*, which ``make(folder)`` of whichever worker asks first has written; copy it to change something."""
    done = folder.with_name(f"{folder.name}.done")
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.write_text(tree_hash(folder))
    return folder


@pytest.fixture(scope="session")
def product(shared):
    """A folder in MVTec layout: 40 good images for training, 8 good and 8 scratched ones with masks for testing."""
    root = once(shared / "product", _tiles)
    yield root
    assert tree_hash(root) == (shared / "product.done").read_text(), "a test has changed what all share"


def _tiles(root: Path) -> None:
    for i in range(40):
        _save(root / "train/good" / f"{i:03d}.png", tile(i))
    for i in range(8):
        _save(root / "test/good" / f"{i:03d}.png", tile(100 + i))
        scratched, mask = tile(200 + i), np.zeros((96, 96), np.uint8)
        mask[30:50, 20 + i : 44 + i] = 255
        scratched[mask > 0] = 250
        _save(root / "test/scratch" / f"{i:03d}.png", scratched)
        _save(root / "ground_truth/scratch" / f"{i:03d}_mask.png", mask)


def _save(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def store(shared):
    """A store of features for all tests of this run, computed by torch: a backbone's graph takes seconds to export."""
    from tests.given import TorchStore

    return TorchStore(shared / "features")


def _cut_off() -> list[str]:
    """A command that runs another one without any network; none where this user may not do that."""
    command = ["unshare", "--net"]
    able = shutil.which(command[0]) and subprocess.run([*command, "true"], capture_output=True).returncode == 0
    return command if able else []


CUT_OFF, DETACHED = _cut_off(), "fitted-without-a-network"
SMALL = ("--preset", "tiny", "--alpha", "0.2")
FEW = ("--set=evaluation.map_size=64", "--set=evaluation.bootstrap=20")


@pytest.fixture(scope="session")
def patchcore(product, shared):
    """What ``loupe fit patchcore`` leaves behind, started in the empty folder ``here`` beside it."""

    def make(out):
        (shared / "here").mkdir(exist_ok=True)
        if CUT_OFF:
            (shared / DETACHED).touch()
        command = [*CUT_OFF, sys.executable, "-m", "components.cli", "fit", "patchcore", *SMALL, *FEW]
        environment = {**os.environ, "PYTHONPATH": str(Path(components.__file__).parents[1])}
        done = subprocess.run(
            [*command, "--data", product, "--out", out],
            cwd=shared / "here",
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

    folder = once(shared / "patchcore", make)
    yield folder
    assert tree_hash(folder) == (shared / "patchcore.done").read_text(), "a test has changed what all share"


@pytest.fixture(scope="session")
def bundle(patchcore):
    """An exported PatchCore on ``product``."""
    return patchcore / "bundle"


@pytest.fixture(scope="session")
def other_bundle(product, shared):
    """A second model for the same product."""
    return once(shared / "other", lambda out: _fitted(product, out, 1)) / "bundle"


@pytest.fixture(scope="session")
def without_test(product, shared):
    """A run whose data set has good training images and nothing else."""

    def make(root):
        shutil.copytree(product / "train", root / "photos/train")
        _fitted(root / "photos", root / "run", 0)

    return once(shared / "good", make) / "run"


def _fitted(data: Path, out: Path, seed: int) -> None:
    from components.pipeline.fit import FitRequest, fit_folder

    fit_folder(FitRequest("patchcore", data, preset="tiny", seed=seed, alpha=0.2), out)


@pytest.fixture(scope="session")
def s3_endpoint():
    """An S3 server in memory, on loopback."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def s3(s3_endpoint, monkeypatch):
    """The environment of ``s3_endpoint``; returns an address nobody else uses."""
    for name, value in keys(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket-{uuid.uuid4().hex[:8]}/below"
