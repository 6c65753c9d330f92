"""Shared pictures and the environment of all tests."""

import os
import tempfile
import uuid

import numpy as np
import pytest
import torch
from PIL import Image

import components  # noqa: F401  (the environment switches, before anything else is imported)

# Sums in another order, multiplied by training, move golden numbers; and two test processes share the cores.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # in the processes that tests start as well
# What runs of this user left behind is nothing to the tests, nor the other way round; set before Prefect is imported.
FLOWS = tempfile.TemporaryDirectory(prefix="loupe-flows-")
os.environ["PREFECT_HOME"] = FLOWS.name
CACHE = tempfile.TemporaryDirectory(prefix="loupe-cache-")
os.environ["LOUPE_CACHE"] = CACHE.name


def pytest_addoption(parser) -> None:
    parser.addoption("--golden", action="store_true", help="store the golden numbers of today: make golden NAME=...")


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
def product(tmp_path_factory):
    """A folder in MVTec layout: 40 good images for training, 8 good and 8 scratched ones with masks for testing."""
    root = tmp_path_factory.mktemp("product")
    for i in range(40):
        _save(root / "train/good" / f"{i:03d}.png", tile(i))
    for i in range(8):
        _save(root / "test/good" / f"{i:03d}.png", tile(100 + i))
        scratched, mask = tile(200 + i), np.zeros((96, 96), np.uint8)
        mask[30:50, 20 + i : 44 + i] = 255
        scratched[mask > 0] = 250
        _save(root / "test/scratch" / f"{i:03d}.png", scratched)
        _save(root / "ground_truth/scratch" / f"{i:03d}_mask.png", mask)
    return root


def _save(path, pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="session")
def bundle(product, tmp_path_factory):
    """An exported PatchCore on ``product``."""
    return _fitted(product, tmp_path_factory.mktemp("bundle"), 0)


@pytest.fixture(scope="session")
def other_bundle(product, tmp_path_factory):
    """A second model for the same product."""
    return _fitted(product, tmp_path_factory.mktemp("other"), 1)


def _fitted(product, out, seed):
    from components.pipeline.fit import FitRequest, fit_folder

    request = FitRequest("patchcore", product, preset="tiny", seed=seed, alpha=0.2)
    return fit_folder(request, out / "run") / "bundle"


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
    names = {"AWS_ACCESS_KEY_ID": "loupe", "AWS_SECRET_ACCESS_KEY": "loupe", "AWS_DEFAULT_REGION": "us-east-1",
             "AWS_ENDPOINT_URL_S3": s3_endpoint}  # fmt: skip
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket-{uuid.uuid4().hex[:8]}/below"
