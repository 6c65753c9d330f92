"""What must be present for a detector to be UniAD; each point fails without it."""

import dataclasses

import pytest
import torch

from components.core.errors import SettingsError
from components.detectors.catalogue import settings_for
from components.detectors.methods.uniad import UniAD
from components.detectors.parts.transformers import Attention, neighbourhood

TINY = settings_for("uniad", "tiny", {"layers": 2})


def made(**changes) -> UniAD:
    torch.manual_seed(0)
    return UniAD(dataclasses.replace(TINY, standardise=False, **changes), pretrained=False).eval()


@pytest.fixture
def rows():
    torch.manual_seed(1)
    return torch.randn(2, 64, 152)


def features(detector, batch=2):
    torch.manual_seed(2)
    taps = zip(detector.backbone.channels, detector.backbone.grids, strict=True)
    return [torch.randn(batch, c, g, g) for c, g in taps]


def test_attention_does_not_see_the_neighbourhood_of_a_position():
    torch.manual_seed(0)
    attention, hidden = Attention(16, 2), neighbourhood(8, 3)
    x = torch.randn(1, 64, 16, requires_grad=True)
    at = 3 * 8 + 4
    attention(x.detach(), x, x, hidden)[0, at].sum().backward()
    reached = x.grad[0].abs().sum(1).view(8, 8) > 1e-9
    assert not reached[2:5, 3:6].any()
    assert int(reached.sum()) == 64 - 9


def test_a_window_over_the_whole_grid_is_refused():
    with pytest.raises(SettingsError, match="hides the whole grid"):
        made(window=9)


def test_the_mask_is_in_every_attention(monkeypatch, rows):
    seen = []
    forward = Attention.forward
    monkeypatch.setattr(Attention, "forward", lambda self, *a: (seen.append(a[3]), forward(self, *a))[1])
    detector = made()
    detector.rebuild(rows)
    assert len(seen) == 2 + 2 * 2  # one per encoder layer, two per decoder layer
    assert all(mask is detector.hidden for mask in seen)


def test_every_decoder_layer_has_a_learned_query_of_its_own(rows):
    detector = made()
    detector.rebuild(rows).square().sum().backward()
    assert detector.queries.shape == (2, 1, 64, 16)
    assert all(float(g.abs().sum()) > 0 for g in detector.queries.grad)


@pytest.mark.parametrize(("layer_queries", "depends"), [(True, False), (False, True)])
def test_what_came_before_enters_a_decoder_layer_as_keys_and_values_only(layer_queries, depends, rows):
    detector = made(layer_queries=layer_queries)
    with torch.no_grad():
        for attention in detector.decoder[-1].attentions:  # cut the keys' and values' way
            attention.value.weight.zero_()
    one, two = detector.rebuild(rows), detector.rebuild(rows + 1)
    assert (not torch.allclose(one, two, atol=1e-5)) is depends


def test_jitter_is_scaled_by_the_norm_and_the_target_stays_clean(rows, monkeypatch):
    detector = made()
    noise = detector.jittered(rows.expand(2, -1, -1)) - rows
    expected = 20 * rows.norm(dim=2) / 152
    torch.testing.assert_close(noise.std(2).mean(), expected.mean(), rtol=0.05, atol=0)
    monkeypatch.setattr(detector, "rebuild", lambda x: x)
    assert float(detector.loss(features(detector))) > 1  # a copy of the jittered input is not the clean target
    assert float(made(jitter=0.0).jittered(rows).sub(rows).abs().max()) == 0


def test_jitter_is_for_training_only():
    detector = made()
    given = features(detector)
    torch.testing.assert_close(detector.score(given, (64, 64)).map, detector.score(given, (64, 64)).map, rtol=0, atol=0)


def test_map_is_the_distance_and_the_image_score_its_largest_local_mean(monkeypatch):
    detector = made()
    given = features(detector, 1)
    off = torch.zeros(1, 64, 152)
    off[0, 9 * 3 + 3, :4] = 2.0  # distance 4 at one position
    monkeypatch.setattr(detector, "rebuild", lambda x: x + off)
    scores = detector.score(given, (64, 64))
    assert float(scores.map.max()) == pytest.approx(4.0, rel=0.05)
    pooled = torch.nn.functional.avg_pool2d(scores.map, TINY.pool, 1)
    assert float(scores.image) == pytest.approx(float(pooled.max()))
    assert float(scores.image) < float(scores.map.max())


def test_nothing_of_a_class_reaches_the_detector():
    """One model for all classes: a draw of training inputs is features and nothing else."""
    detector = made()

    class Given:
        def features(self, backbone):
            assert backbone is detector.backbone
            return "features"

    (phase,) = detector.phases(Given())
    assert phase.table == "features"
