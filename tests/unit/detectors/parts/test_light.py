"""Gain and offset between a picture and what was rebuilt of it: found under noise, and not by a defect."""

import pytest
import torch
import torch.nn.functional as F

from components.core.runtime import session
from components.detectors.parts.light import GAINS, light, relit

LIT = [(1.2, 0.05), (0.7, 0.0), (1.0, -0.1), (1.6, -0.2)]
SIDES = [64, 128, 200]


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def surface(draw: torch.Generator, side: int = 64, contrast: float = 0.15) -> torch.Tensor:
    """Two pictures (2, 3, side, side) of smooth shade and texture, about 0.5."""
    coarse, fine = (torch.randn(2, 1, cells, cells, generator=draw) for cells in (4, 32))
    shade = sum(F.interpolate(x, size=side, mode="bilinear") for x in (coarse, 0.5 * fine))
    return (0.5 + contrast * shade).expand(-1, 3, -1, -1)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(("gain", "offset"), LIT)
def test_gain_and_offset_are_found_under_noise(gain, offset, side, draw):
    rebuilt = surface(draw, side)
    found = light(rebuilt, gain * rebuilt + offset + 0.01 * torch.randn(rebuilt.shape, generator=draw))
    for values, expected in zip(found, (gain, offset), strict=True):
        assert values.shape == (2, 1, 1, 1)
        torch.testing.assert_close(values.flatten(), torch.full((2,), expected), rtol=0, atol=0.02)


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize(("gain", "offset"), LIT)
def test_a_defect_over_a_quarter_does_not_pull_the_fit(gain, offset, value, draw):
    rebuilt = surface(draw)
    images = gain * rebuilt + offset
    images[:, :, :32, 32:] = value
    left = (images - relit(rebuilt, images)).abs()
    whole = (images - gain * rebuilt - offset).abs()
    assert float((left - whole).abs().max()) < 0.03
    assert float(left[:, :, 32:].max()) < 0.03


def test_a_quarter_that_is_a_little_darker_still_stands_out(draw):
    rebuilt = surface(draw)
    images = rebuilt + 0.01 * torch.randn(rebuilt.shape, generator=draw)
    images[:, :, 16:48, 16:48] -= 0.1
    left = images - relit(rebuilt, images)
    assert float(left[:, :, 16:48, 16:48].mean()) < -0.08
    assert float(left[:, :, :16].mean().abs()) < 0.02


def test_a_picture_in_its_own_light_stays_as_it_is(draw):
    rebuilt = surface(draw)
    torch.testing.assert_close(relit(rebuilt, rebuilt), rebuilt, rtol=0, atol=1e-6)


def test_a_flat_picture_has_gain_one_and_takes_the_offset():
    for rebuilt in (0.4, 0.0):
        gain, offset = light(torch.full((1, 3, 64, 64), rebuilt), torch.full((1, 3, 64, 64), 0.52))
        assert float(gain) == 1
        assert float(offset) == pytest.approx(0.52 - rebuilt, abs=1e-6)


def test_noise_on_a_flat_picture_is_no_gain(draw):
    """What the fit sees of a part on an even background is mostly background."""
    flat = 0.5 + 0.003 * torch.randn(1, 3, 64, 64, generator=draw)
    assert float(light(flat, 1.1 - flat)[0]) == pytest.approx(1, abs=0.1)


def test_the_gain_stays_within_bounds(draw):
    rebuilt = surface(draw, contrast=0.3)
    gains = [float(light(rebuilt[:1], images)[0]) for images in (0.2 * rebuilt[:1], 4 * rebuilt[:1], -rebuilt[:1])]
    assert gains == [GAINS[0], GAINS[1], GAINS[0]]


def test_one_channel_alone_is_no_light(draw):
    rebuilt = surface(draw)
    images = rebuilt.clone()
    images[:, 0] += 0.3
    left = images - relit(rebuilt, images)
    for channel, expected in ((0, 0.2), (1, -0.1)):  # their mean alone is taken for light
        torch.testing.assert_close(left[:, channel], torch.full((2, 64, 64), expected), rtol=0, atol=1e-4)


def test_each_picture_has_a_light_of_its_own(draw):
    rebuilt = surface(draw)
    images = torch.stack([1.3 * rebuilt[0], rebuilt[1]])
    alone = torch.cat([relit(a[None], b[None]) for a, b in zip(rebuilt, images, strict=True)])
    torch.testing.assert_close(relit(rebuilt, images), alone)


class Fit(torch.nn.Module):
    def forward(self, rebuilt: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
        return relit(rebuilt, images)


def test_the_graph_finds_the_same(draw, tmp_path):
    side = 200  # the cells do not come out even
    rebuilt = surface(draw, side)
    images = 1.2 * rebuilt + 0.05 + 0.01 * torch.randn(rebuilt.shape, generator=draw)
    images[0, :, : side // 2, : side // 2] = 0.9
    rows = {0: torch.export.Dim("batch")}
    program = torch.onnx.export(
        Fit(), (rebuilt, images), dynamo=True, opset_version=20, dynamic_shapes=(rows, rows), verbose=False
    )
    program.save(tmp_path / "model.onnx")
    opened = session(tmp_path / "model.onnx")
    names = [given.name for given in opened.get_inputs()]
    for count in (1, 2):
        given = {n: v[:count].numpy() for n, v in zip(names, (rebuilt, images), strict=True)}
        (found,) = opened.run(None, given)
        torch.testing.assert_close(torch.from_numpy(found), relit(rebuilt, images)[:count], rtol=0, atol=1e-5)
