"""Maps of structural and gradient similarity against slower, more exact twins."""

import pytest
import torch
from kornia.metrics import ssim

from components.detectors.parts.similarity import structural_difference


@pytest.fixture
def pair():
    draw = torch.Generator().manual_seed(0)
    smooth = 0.8 + 0.02 * torch.rand(2, 3, 48, 40, generator=draw)
    return smooth, (smooth + 0.01 * torch.randn(2, 3, 48, 40, generator=draw)).clamp(0, 1)


@pytest.mark.parametrize("window", [7, 11])
def test_structural_difference_is_kornia_s_in_double(pair, window):
    one, two = (image.double() for image in pair)
    expected = 1 - ssim(one, two, window, max_val=1.0, padding="same").mean(1, keepdim=True)
    torch.testing.assert_close(structural_difference(one, two, window), expected, rtol=0, atol=1e-9)


def test_float32_keeps_the_structure_of_smooth_areas(pair):
    exact = structural_difference(*(image.double() for image in pair))
    assert (structural_difference(*pair) - exact).abs().max() < 5e-6


def test_an_image_and_itself_do_not_differ(pair):
    torch.testing.assert_close(structural_difference(pair[0], pair[0]), torch.zeros(2, 1, 48, 40), rtol=0, atol=1e-6)
