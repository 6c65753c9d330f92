"""Standardised positions, shared by the detectors whose maps can have them."""

import pytest
import torch

from benchmarks.quality.floor import closed_form
from components.detectors.catalogue import create, settings_for
from components.detectors.parts.blocks import Positions
from components.training.data import FileImages, FitImages


def test_each_position_has_a_mean_and_a_deviation_of_its_own():
    torch.manual_seed(0)
    maps = 3 + torch.rand(50, 1, 4, 4) * torch.arange(1.0, 17).view(1, 1, 4, 4)
    positions = Positions(16, active=True)
    positions.add(maps)
    positions.finish()
    scaled = positions(maps)
    expected = (maps - maps.mean(0)) / maps.std(0, correction=0)
    torch.testing.assert_close(scaled, expected, rtol=1e-3, atol=1e-3)
    assert Positions(16, active=False)(maps) is maps


@pytest.mark.parametrize("name", ["uniad", "adtr", "sivt", "msfi", "pni", "alps", "fmr_net"])
def test_maps_of_normals_are_alike_at_every_position(name, product, store):
    paths = tuple(sorted((product / "train/good").glob("*.png"))[:12])
    data = FitImages(FileImages(paths, tuple(p.name for p in paths)), store)
    scored = {}
    for positions in (False, True):
        torch.manual_seed(0)
        detector = create(name, settings_for(name, "tiny", {"positions": positions}))
        closed_form(detector, data)
        table = detector.inputs(data)
        with torch.inference_mode():
            scored[positions] = detector.score(table.take(range(12)), (64, 64)).map.mean(0)
    # Interpolation leaves means of zero what they are.
    assert scored[True].abs().max() < 1e-2
    assert scored[False].abs().max() > 1e-3
