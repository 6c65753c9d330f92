"""What methods stand on: blocks, transformers, convolutions, each against a formula."""

import pytest
import torch
import torch.nn.functional as F

from components.detectors.parts.blocks import GaussianBlur, focal, largest, nearest
from components.detectors.parts.convolutions import Decoder
from components.detectors.parts.similarity import gradient_difference
from components.detectors.parts.transformers import DecoderLayer, EncoderLayer, PreNormLayer, together, waves


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def entering(attention) -> list:
    """What will enter *attention*: queries, keys, values, mask."""
    seen: list = []
    attention.register_forward_pre_hook(lambda _, given: seen.extend(given))
    return seen


def test_positions_are_in_queries_and_keys_and_not_in_values():
    x, memory, position = torch.randn(2, 5, 8), torch.randn(2, 5, 8), torch.randn(5, 8)
    encoder = EncoderLayer(8, 2, 16, 0.0)
    seen = entering(encoder.attention)
    encoder(x, position)
    for found, expected in zip(seen, (x + position, x + position, x), strict=False):
        torch.testing.assert_close(found, expected)
    decoder = DecoderLayer(8, 2, 16, 0.0)
    parts = [entering(attention) for attention in decoder.attentions]
    decoder(x, None, memory, position)
    for seen, source in zip(parts, (x, memory), strict=True):
        torch.testing.assert_close(seen[1], source + position)
        torch.testing.assert_close(seen[2], source)
    torch.testing.assert_close(parts[0][0], x + position)


def test_a_pre_norm_layer_attends_and_feeds_forward_beside_its_residual():
    layer, x = PreNormLayer(8, 2), torch.randn(2, 5, 8)
    y = F.layer_norm(x, (8,))
    attended = x + layer.attention(y, y, y)
    torch.testing.assert_close(layer(x), attended + layer.feed(F.layer_norm(attended, (8,))))


def test_waves_tell_every_position_from_every_other():
    found = waves(6, 16)
    assert float((torch.cdist(found, found) + torch.eye(36)).min()) > 0.1


def test_all_taps_are_rebuilt_on_one_grid():
    fine, coarse = torch.randn(1, 2, 7, 7), torch.randn(1, 3, 4, 4)
    found = together([fine, coarse], 4)
    torch.testing.assert_close(found[:, :2], fine[:, :, ::2, ::2])  # corners on corners
    torch.testing.assert_close(found[:, 2:], coarse)


def test_laterals_reach_the_decoder_of_a_u_net():
    decoder = Decoder((4, 3, 2), (5, 0)).eval()
    deepest, lateral = torch.randn(1, 4, 4, 4, requires_grad=True), torch.randn(1, 5, 8, 8, requires_grad=True)
    finest = decoder(deepest, [lateral, None])[-1]
    assert finest.shape == (1, 2, 16, 16)
    assert all(grad.any() for grad in torch.autograd.grad(finest.sum(), [deepest, lateral]))


def test_gradient_similarity_is_the_mean_over_halvings():
    one, two = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 16)
    halved = gradient_difference(F.avg_pool2d(one, 2), F.avg_pool2d(two, 2), 1)
    up = F.interpolate(halved, (16, 16), mode="bilinear", align_corners=False)
    torch.testing.assert_close(gradient_difference(one, two, 2), (gradient_difference(one, two, 1) + up) / 2)


def test_gradient_similarity_sees_edges_of_both_directions():
    flat, edge = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    edge[..., 8:] = 1
    across, along = gradient_difference(edge, flat), gradient_difference(edge.transpose(2, 3), flat)
    assert float(across.max()) > 0.5
    torch.testing.assert_close(along.transpose(2, 3), across)


def test_the_focal_loss_counts_easy_pixels_little():
    logits, target = torch.tensor([3.0, -1.0, 0.5]), torch.tensor([1.0, 1.0, 0.0])
    right = torch.where(target > 0, logits, -logits).sigmoid()
    torch.testing.assert_close(focal(logits, target), (-((1 - right) ** 2) * right.log()).mean())


def test_the_weight_of_the_focal_loss_is_of_the_anomalous_class():
    logits, target = torch.zeros(2), torch.tensor([1.0, 0.0])
    anomalous, normal = (focal(logits[i : i + 1], target[i : i + 1], alpha=0.8) for i in range(2))
    assert float(anomalous / normal) == pytest.approx(4)


def test_the_mean_of_the_largest_share():
    maps = torch.tensor([3.0, 9.0, 1.0, 5.0, 0.0, 2.0, 4.0, 6.0]).view(1, 1, 2, 4)
    assert [float(largest(maps, share)) for share in (1e-3, 0.25, 1.0)] == [9.0, 7.5, 3.75]


def test_the_nearest_row_and_its_distance():
    queries, bank = torch.randn(7, 3), torch.randn(5, 3)
    distance, index = nearest(queries, bank)
    expected = torch.cdist(queries, bank).min(1)
    torch.testing.assert_close(distance, expected.values)
    assert torch.equal(index, expected.indices)


def test_the_blur_is_a_gaussian_both_ways():
    dot = torch.zeros(1, 1, 17, 17)
    dot[..., 8, 8] = 1
    line = torch.exp(-0.5 * (torch.arange(-8, 9) / 1.5) ** 2)
    line[[0, 1, -2, -1]] = 0  # truncated at four sigma, six pixels
    line = line / line.sum()
    torch.testing.assert_close(GaussianBlur(1.5)(dot)[0, 0], torch.outer(line, line))
    torch.testing.assert_close(GaussianBlur(0.0)(dot), dot)  # no number before, as of any map


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("sigma", [0.0, 1.5, 4.0])
def test_a_map_is_enlarged_and_then_blurred(sigma, corners):
    """By definition: bilinear, then both ways a convolution whose edges are replicated."""
    maps, radius = torch.rand(2, 1, 5, 7), int(4 * sigma + 0.5)
    up = F.interpolate(maps, (20, 33), mode="bilinear", align_corners=corners)
    line = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / max(sigma, 1e-9)) ** 2)
    line = line / line.sum()
    padded = F.pad(up, (radius,) * 4, mode="replicate")
    expected = F.conv2d(padded, torch.outer(line, line)[None, None])
    torch.testing.assert_close(GaussianBlur(sigma)(maps, (20, 33), corners), expected)
