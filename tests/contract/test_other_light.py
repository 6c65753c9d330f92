"""Where a method compares pixels with what it rebuilt of them, other light is told from a defect (ADR 0029)."""

from pathlib import Path

import numpy as np
import pytest
import torch

from components.core.runtime import session
from components.detectors.catalogue import CATALOGUE, settings_for
from components.export.embedding import Described
from components.export.graph import write_graph
from components.pictures.imaging import to_tensor
from components.training.data import FileImages
from components.training.descriptors import descriptor
from tests.conftest import tile
from tests.contract.conftest import looped
from tests.contract.test_detectors import a_few_steps

NAMES = [name for name in sorted(CATALOGUE) if hasattr(settings_for(name, "cpu"), "brightness")]


@pytest.fixture(scope="module", params=NAMES)
def both(request, product, store, tmp_path_factory):
    """The same few steps without and with the fit of gain and offset."""
    paths = sorted((product / "train/good").glob("*.png"))[:20]
    images = FileImages(tuple(paths), tuple(p.name for p in paths))
    changes = a_few_steps(request.param)
    return tuple(
        looped(request.param, images, store, tmp_path_factory.mktemp("light"), **changes | {"brightness": on}).detector
        for on in (False, True)
    )


@pytest.fixture(scope="module")
def batch() -> torch.Tensor:
    return torch.stack([to_tensor(tile(seed)) for seed in range(20, 24)])


def marked(images: torch.Tensor) -> torch.Tensor:
    """With a bright square on a sixteenth of each."""
    found = images.clone()
    found[:, :, 32:56, 40:64] = 0.95
    return found


@torch.inference_mode()
def moved(detector, images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """By how much the image scores are other ones, (B,)."""
    return (detector(others).image - detector(images).image).abs()


def test_other_light_moves_scores_by_less(both, batch):
    """As a share of what a defect moves: the two are not of one scale."""
    without, with_fit = (
        float((moved(d, batch, 1.2 * batch + 0.05) / moved(d, batch, marked(batch))).mean()) for d in both
    )
    assert with_fit < without


def test_a_defect_is_found_in_other_light(both, batch):
    lit = 1.2 * batch + 0.05
    with torch.inference_mode():
        assert (both[1](marked(lit)).image > both[1](lit).image).all()


@pytest.mark.parametrize("both", ["nln"], indirect=True)  # others call the part once, which has its own test
def test_the_graph_fits_as_the_detector_does(both, batch, tmp_path: Path):
    detector, lit = both[1], 1.2 * marked(batch) + 0.05
    with torch.inference_mode():
        described = Described(detector, descriptor(detector.prepared(batch)))
        write_graph(described, tmp_path / "model.onnx", 20, {})
        scores = detector(lit)
    image, maps = session(tmp_path / "model.onnx").run(["score", "map"], {"image": lit.numpy()})
    tolerance = 1e-3 * float(scores.map.max() - scores.map.min())
    np.testing.assert_allclose(maps, scores.map, rtol=1e-3, atol=tolerance)
    np.testing.assert_allclose(image, scores.image, rtol=1e-3, atol=tolerance)


def test_published_presets_compare_pixels_as_they_are():
    assert [n for n in NAMES if settings_for(n, "paper").brightness] == []
    assert len(NAMES) == 6
