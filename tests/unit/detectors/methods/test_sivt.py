"""What must be present for a detector to be SIVT; each point fails without it."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from components.core.errors import SettingsError
from components.detectors.catalogue import settings_for
from components.detectors.methods.sivt import SIVT

TINY = settings_for("sivt", "tiny")


def made(**changes) -> SIVT:
    torch.manual_seed(0)
    return SIVT(dataclasses.replace(TINY, standardise=False, **changes), pretrained=False).eval()


@pytest.fixture
def target():
    torch.manual_seed(1)
    return torch.randn(1, 152, 8, 8)


@pytest.mark.parametrize("partition", ["random", "checkerboard"])
def test_subsets_are_disjoint_complementary_and_of_one_size(partition):
    subsets = made(partition=partition).subsets
    assert subsets.shape == (4, 64)
    assert (subsets.sum(0) == 1).all()
    assert (subsets.sum(1) == 16).all()


def test_training_draws_new_subsets_and_inference_keeps_its_own(target, monkeypatch):
    detector, used = made(), []
    monkeypatch.setattr(detector, "target", lambda _: target)
    monkeypatch.setattr(detector, "rebuild", lambda found, subsets: used.append(subsets) or found)
    for step in (detector.loss, detector.loss, detector.product):
        step([])
    assert not torch.equal(used[0], used[1])
    assert (torch.stack(used).sum(1) == 1).all()
    assert used[2] is detector.subsets


def test_other_sizes_of_a_checkerboard_are_refused():
    with pytest.raises(SettingsError, match="4 subsets"):
        dataclasses.replace(TINY, partition="checkerboard", subsets=3)


@pytest.mark.parametrize(("subsets", "own"), [(4, False), (1, True)])
def test_a_position_is_induced_from_the_others_only(subsets, own, target):
    detector = made(subsets=subsets)
    target.requires_grad_()
    at = 3 * 8 + 5
    detector.induced(target, detector.subsets)[0, at].square().sum().backward()
    reached = target.grad[0].abs().sum(0) > 0
    assert bool(reached[3, 5]) is own
    hidden = detector.subsets[:, at].argmax()
    if not own:
        assert torch.equal(~reached.flatten(), detector.subsets[hidden] == 1)


def test_the_decoder_sees_induced_positions_only(target, monkeypatch):
    detector = made()
    monkeypatch.setattr(detector, "induced", lambda t, _: torch.zeros(len(t), 64, 16))
    torch.testing.assert_close(
        detector.rebuild(target, detector.subsets), detector.rebuild(target + 1, detector.subsets)
    )


def test_one_shared_encoder_runs_over_all_sequences(target):
    detector, seen = made(), []
    detector.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape))
    detector.rebuild(target.expand(3, -1, -1, -1), detector.subsets)
    assert seen == [(3 * 4, 64, 16)]


def test_auxiliary_tokens_know_their_position_unless_the_released_form_is_asked_for():
    assert made().auxiliary.shape == (1, 64, 16)
    released = made(positioned=False)
    assert released.auxiliary.shape == (1, 1, 16)
    latent = released.induced(torch.randn(1, 152, 8, 8), released.subsets)[0]
    for subset in released.subsets.bool():  # the conflict of paper and code: one latent per subset
        torch.testing.assert_close(latent[subset], latent[subset][:1].expand(16, -1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_position_is_in_tokens_and_auxiliary_tokens(target):
    detector, seen = made(), []
    for parameter in (detector.embed.weight, detector.embed.bias, detector.auxiliary):
        parameter.zero_()
    detector.encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    detector.induced(target, detector.subsets)
    torch.testing.assert_close(seen[0], detector.position.expand(4, -1, -1))


def test_loss_has_a_distance_and_a_direction_term(monkeypatch, target):
    detector = made()
    monkeypatch.setattr(detector, "target", lambda _: target)
    monkeypatch.setattr(detector, "rebuild", lambda t, _: 2 * t)  # same direction
    assert float(detector.loss([])) == pytest.approx(float(target.square().mean()), rel=1e-4)
    monkeypatch.setattr(detector, "rebuild", lambda t, _: -t)
    assert float(detector.loss([])) == pytest.approx(float(4 * target.square().mean() + 5 * 2), rel=1e-4)


def test_map_is_the_product_and_the_image_score_its_deviation(monkeypatch, target):
    detector = made()
    found = target.clone()
    found[0, :, 4, 4] *= -1
    monkeypatch.setattr(detector, "target", lambda _: target)
    monkeypatch.setattr(detector, "rebuild", lambda *_: found)
    scores = detector.score([], (64, 64))
    distance = (target - found).square().mean(1, keepdim=True)
    direction = 1 - F.cosine_similarity(target, found, dim=1)[:, None]
    up = [detector.blur(F.interpolate(m, (64, 64), mode="bilinear", align_corners=True)) for m in (distance, direction)]
    torch.testing.assert_close(scores.map, up[0] * up[1])
    assert float(scores.image) == pytest.approx(float(scores.map.std(correction=0)), rel=1e-4)
    longer = dataclasses.replace(detector.settings, deviation=False)
    detector.settings = longer
    assert float(detector.score([], (64, 64)).image) == pytest.approx(float(scores.map.max()), rel=1e-4)
