"""What must be present for a detector to be ADTR; each point fails without it."""

import dataclasses
import math

import pytest
import torch

from components.detectors.catalogue import settings_for
from components.detectors.methods.adtr import ADTR, pseudo_huber, push_pull

TINY = settings_for("adtr", "tiny")


def made(**changes) -> ADTR:
    torch.manual_seed(0)
    return ADTR(dataclasses.replace(TINY, standardise=False, **changes), pretrained=False).eval()


class Given:
    """Training data whose tables are their names."""

    def features(self, _):
        return ["normal"]

    def masks(self, side):
        return [f"masks {side}"]

    def anomalies(self, strategies, size):
        assert (strategies, size) == (("confetti",), 64)
        return self


def test_frozen_features_are_rebuilt_not_pixels():
    detector = made()
    taps = zip(detector.backbone.channels, detector.backbone.grids, strict=True)
    given = [torch.randn(2, c, g, g) for c, g in taps]
    assert detector.difference(given).shape == (2, 64, sum(detector.backbone.channels))


def test_the_decoder_starts_from_learned_queries_and_reads_the_input_by_cross_attention_only():
    detector, rows = made(), torch.randn(2, 64, 152)
    detector.rebuild(rows).square().sum().backward()
    assert float(detector.queries.grad.abs().sum()) > 0
    for plain, depends in ((detector, False), (made(queries=False), True)):
        with torch.no_grad():
            for layer in plain.decoder:
                layer.attentions[1].value.weight.zero_()
        changed = not torch.allclose(plain.rebuild(rows), plain.rebuild(rows + 1), atol=1e-5)
        assert changed is depends


def test_position_is_added_in_every_layer():
    detector, rows = made(layers=2), torch.randn(2, 64, 152)
    plain = detector.rebuild(rows)
    for layer in (*detector.encoder, *detector.decoder):
        forward = layer.forward
        layer.forward = lambda *a, f=forward: f(*a[:-1], torch.zeros_like(a[-1]))
        assert not torch.allclose(detector.rebuild(rows), plain, atol=1e-6)
        layer.forward = forward


def test_map_is_the_distance_and_the_image_score_its_largest_local_mean(monkeypatch):
    detector = made()
    given = [torch.zeros(1, c, g, g) for c, g in zip(detector.backbone.channels, detector.backbone.grids, strict=True)]
    off = torch.zeros(1, 64, 152)
    off[0, 3 * 8 + 3, :4] = 2.0
    monkeypatch.setattr(detector, "rebuild", lambda x: x - off)
    scores = detector.score(given, (64, 64))
    assert float(scores.map.max()) == pytest.approx(4.0, rel=0.05)
    pooled = torch.nn.functional.avg_pool2d(scores.map, TINY.pool, 1)
    assert float(scores.image) == pytest.approx(float(pooled.max()))


def test_the_loss_of_normals_is_the_squared_distance_per_position(monkeypatch):
    detector, off = made(), torch.randn(2, 64, 152)
    monkeypatch.setattr(detector, "difference", lambda _: off)
    torch.testing.assert_close(detector.normal_loss([]), off.square().sum(2).mean())


def test_pseudo_huber_is_that_of_the_paper():
    difference = torch.tensor([[[3.0, -5.0], [0.0, 0.0]]])
    assert pseudo_huber(difference)[0].tolist() == pytest.approx([math.sqrt(4**2 + 1) - 1, 0])


def test_pixel_loss_pulls_normal_positions_and_pushes_anomalous_ones():
    distance, labels = torch.tensor([[0.5, 1.0, 0.2, 0.3]]), torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    expected = (0.5 + 0.2 + 0.3) / 4 - 0.003 * math.log(1 - math.exp(-1.0 / 4))
    assert float(push_pull(distance, labels, TINY)) == pytest.approx(expected, rel=1e-5)
    clean = push_pull(distance, torch.zeros_like(labels), TINY)
    assert float(clean) == pytest.approx(2.0 / 4)  # no second term, and no logarithm of zero
    distance.requires_grad_()
    push_pull(distance, labels, TINY).backward()
    assert (distance.grad > 0).tolist() == [[True, False, True, True]]
    assert float(distance.grad[0, 1]) < 0


def test_image_loss_is_over_the_largest_distances():
    settings = dataclasses.replace(TINY, push_loss="image", most=2)
    distance = torch.tensor([[0.5, 1.0, 0.2, 0.3], [0.5, 1.0, 0.2, 0.3]])
    labels = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0] * 4])
    expected = (-0.003 * math.log(1 - math.exp(-0.75)) + 0.75) / 2
    assert float(push_pull(distance, labels, settings)) == pytest.approx(expected, rel=1e-5)


def test_the_second_stage_learns_from_synthetic_anomalies_and_can_be_off():
    assert [s.name for s in made().phases(Given())] == ["reconstruction", "push-pull"]
    assert [s.name for s in made(push_epochs=0).phases(Given())] == ["reconstruction"]
    *_, phase = made().phases(Given())
    assert [table[0] for table in phase.table.tables] == ["normal", "masks 8"]
