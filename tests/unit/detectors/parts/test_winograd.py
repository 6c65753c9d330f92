"""Winograd's convolution is a convolution: values and gradients, at every side that it takes."""

import pytest
import torch
import torch.nn.functional as F

from components.detectors.parts import winograd
from components.detectors.parts.winograd import WIDE, Winograd, convolved


def given(shape, outputs, kernel=3, dtype=torch.double):
    torch.manual_seed(0)
    maps = torch.randn(shape, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, shape[1], kernel, kernel, dtype=dtype) / (9 * shape[1]) ** 0.5
    return [t.requires_grad_() for t in (maps, weight, torch.randn(outputs, dtype=dtype))]


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (1, 5, 8, 16), (3, 2, 16, 8)])
def test_values_and_gradients_are_those_of_a_convolution(shape):
    parts = given(shape, 6)
    ours, literal = Winograd.apply(*parts), F.conv2d(*parts, padding=1)
    torch.testing.assert_close(ours, literal)
    back = torch.randn_like(literal)
    for one, other in zip(*(torch.autograd.grad(y, parts, back) for y in (ours, literal)), strict=True):
        torch.testing.assert_close(one, other)


def test_maps_that_need_no_gradient_get_none():
    maps, weight, bias = given((2, 3, 4, 4), 6)
    Winograd.apply(maps.detach(), weight, bias).square().sum().backward()
    expected = torch.autograd.grad(F.conv2d(maps, weight, bias, padding=1).square().sum(), weight)[0]
    torch.testing.assert_close(weight.grad, expected)
    assert maps.grad is None


def test_in_single_precision_it_differs_by_rounding():
    parts = given((4, 2 * WIDE, 8, 8), WIDE, dtype=torch.float32)
    with torch.no_grad():
        ours, exact = convolved(*parts), F.conv2d(*(part.double() for part in parts), padding=1)
    assert float((ours - exact).abs().max() / exact.abs().max()) < 2e-5


@pytest.mark.parametrize(
    ("shape", "kernel", "taken"),
    [
        ((1, WIDE, 8, 8), 3, True),
        ((1, WIDE, 8, 6), 3, False),  # no whole tiles
        ((1, WIDE - 1, 8, 8), 3, False),  # the library is faster
        ((1, WIDE, 8, 8), 1, False),
    ],
)
def test_what_it_takes_and_what_it_leaves_to_the_library(shape, kernel, taken, monkeypatch):
    parts, calls = given(shape, 4, kernel), []
    monkeypatch.setattr(winograd, "_tiles", lambda maps, plain=winograd._tiles: calls.append(1) or plain(maps))
    torch.testing.assert_close(convolved(*parts), F.conv2d(*parts, padding=kernel // 2))
    assert bool(calls) == taken
