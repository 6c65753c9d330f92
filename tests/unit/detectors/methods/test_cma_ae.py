"""What must be present for a detector to be CMA-AE; each point fails without it."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from components.backbones.extractor import BackboneSettings
from components.core.errors import SettingsError
from components.detectors.catalogue import settings_for
from components.detectors.contract import OnePass, Optimise
from components.detectors.methods.cma_ae import CMAAE, ClearMemory, forgetting
from components.detectors.parts.memory import as_maps, as_queries, entropy
from components.detectors.parts.similarity import gradient_difference, structural_difference
from tests.given import Named, stripes

TINY = settings_for("cma_ae", "tiny")
OUTER = {"residual_features": "backbone", "backbone": BackboneSettings(taps=(0, 1, 2), size=64)}


def made(**changes) -> CMAAE:
    torch.manual_seed(0)
    return CMAAE(dataclasses.replace(TINY, **changes), pretrained=False).eval()


@pytest.fixture
def images():
    torch.manual_seed(1)
    return torch.rand(4, 3, 64, 64)


@pytest.fixture
def encoded():
    torch.manual_seed(2)
    return torch.randn(2, 16, 8, 8)


@pytest.fixture
def clear():
    torch.manual_seed(3)
    return ClearMemory(16, TINY)


def opened(layer: torch.nn.Conv2d, value: float) -> None:
    """Fix a gate: far above zero it is open, far below closed."""
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.constant_(layer.bias, value)


def test_the_encoding_passes_the_forget_gate_alone(clear, encoded):
    opened(clear.forget, 50.0)
    opened(clear.write, -50.0)
    torch.testing.assert_close(clear(encoded)[0], encoded)


def test_the_memory_passes_the_input_gate_alone(clear, encoded):
    opened(clear.forget, -50.0)
    opened(clear.write, 50.0)
    mixed, _, weights = clear(encoded)
    rows = (weights @ clear.memory.slots).view(2, 8, 8, 16).permute(0, 3, 1, 2)
    torch.testing.assert_close(mixed, rows)
    torch.testing.assert_close(weights.sum(2), torch.ones(1, 128))


def test_both_gates_see_the_encoding_and_the_memory(clear, encoded):
    seen = []
    for gate in (clear.forget, clear.write):
        gate.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    weights = clear(encoded)[2]
    remembered = (weights @ clear.memory.slots).view(2, 8, 8, 16).permute(0, 3, 1, 2)
    for given in seen:
        torch.testing.assert_close(given, torch.cat([encoded, remembered], 1))


def test_at_first_more_is_kept_than_forgotten(clear, encoded):
    assert float(clear(encoded)[1].mean()) > 0.6


def test_nothing_reaches_the_decoder_beside_the_gates(images):
    detector = made(gated=1)
    for gate in detector.restorer.gates:
        opened(gate.forget, -50.0)
        opened(gate.write, -50.0)
    entered = []
    detector.restorer.decoder.register_forward_pre_hook(lambda _, given: entered.extend(given))
    detector.restorer(images)
    deepest, laterals = entered
    assert float(deepest.abs().max()) < 1e-6
    assert laterals == [None] * len(TINY.widths)


def test_finer_levels_can_be_gated_too(images):
    detector = made(gated=2)
    repaired, kept, _ = detector.restorer(images)
    assert [gate.shape[2] for gate in kept] == [8, 16]
    before = repaired.detach()
    opened(detector.restorer.gates[1].forget, -50.0)
    assert not torch.allclose(detector.restorer(images)[0], before)
    with pytest.raises(SettingsError, match="gated"):
        made(gated=4)


def test_anomalous_images_are_learned_from_with_the_clean_ones_as_the_target():
    given, detector = Named(), made(strategies=("natural", "natural_blended"), copies=3)
    restoration, standardise = detector.phases(given)
    assert [type(restoration), type(standardise)] == [Optimise, OnePass]
    assert [t[0] for t in restoration.table.tables] == ["pixels 64", "clean 64", "masks 64"]
    assert given.asked == [(("natural", "natural_blended"), 64, 3)]
    assert standardise.table == ["pixels 64"]


def test_the_target_is_the_clean_image(images, monkeypatch):
    detector, clean = made(clean_share=0.0, entropy=0.0), torch.rand(4, 3, 64, 64)
    weights = [torch.full((1, 4, 2), 0.5)]
    monkeypatch.setattr(detector.restorer, "forward", lambda given: (clean, [given[:, :1]], weights))
    assert float(detector.loss((images, clean, images[:, :1]))) == pytest.approx(0, abs=1e-3)
    assert float(detector.loss((images, images, images[:, :1]))) > 0.1


def test_the_loss_has_four_parts(images):
    detector = made(clean_share=0.0, structure=2.0, gradient=3.0, entropy=0.5)
    clean = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        repaired, _, weights = detector.restorer(images)
        parts = [
            F.mse_loss(repaired, clean),
            structural_difference(repaired, clean).mean(),
            gradient_difference(repaired, clean).mean(),
            entropy(weights[0]),
        ]
        assert min(parts) > 0.01
        expected = parts[0] + 2 * parts[1] + 3 * parts[2] + 0.5 * parts[3]
        torch.testing.assert_close(detector.loss((images, clean, images[:, :1])), expected)


def test_a_share_of_the_pairs_is_clean(images):
    torch.manual_seed(0)
    many, masks = images.repeat(100, 1, 1, 1), torch.ones(400, 1, 64, 64)
    given, target, left = made(clean_share=0.3).mixed((many + 1, many, masks))
    clean = (given == target).flatten(1).all(1)
    assert float(clean.float().mean()) == pytest.approx(0.3, abs=0.07)
    assert torch.equal(clean, ~left.flatten(1).any(1))  # what is clean has no mask
    for share, expected in ((0.0, False), (1.0, True)):
        given, target, _ = made(clean_share=share).mixed((images + 1, images, masks[:4]))
        assert bool((given == target).all()) == expected


def test_training_learns_to_forget_where_the_anomaly_is(images):
    detector = made(forgetting=1.0, clean_share=0.0).train()
    masks = torch.zeros(4, 1, 64, 64)
    masks[:, :, 16:40, 16:40] = 1
    stained = torch.where(masks > 0, torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1), 0.2 * images)
    optimiser = torch.optim.Adam(detector.restorer.parameters(), lr=1e-2)
    for _ in range(30):
        optimiser.zero_grad()
        detector.loss((stained, 0.2 * images, masks)).backward()
        optimiser.step()
    kept = detector.eval().restorer(stained)[1][0].mean((0, 1))
    assert float(kept[3:4, 3:4].mean()) < float(kept[6:, 6:].mean()) - 0.2


def test_the_helping_loss_wants_the_gate_shut_on_the_mask():
    masks = torch.zeros(1, 1, 64, 64)
    masks[:, :, :32] = 1
    kept = torch.full((1, 5, 8, 8), 0.01)
    kept[:, :, 4:] = 0.99
    assert float(forgetting([kept], masks)) < 0.05
    assert float(forgetting([1 - kept], masks)) > 4


@pytest.mark.parametrize("outer", [{}, OUTER], ids=["encoder", "backbone"])
def test_the_map_is_a_residual_of_features_on_three_scales(images, outer, monkeypatch):
    detector = made(**outer)
    monkeypatch.setattr(detector.restorer, "forward", lambda given: (given, [], []))
    assert float(detector.residuals(images).abs().max()) < 1e-4  # a perfect repair leaves nothing
    monkeypatch.setattr(detector.restorer, "forward", lambda given: (1 - given, [], []))
    residuals = detector.residuals(images)
    assert residuals.shape == (4, 3, 64, 64)
    assert (residuals.amax((0, 2, 3)) > 1e-3).all()  # every scale takes part
    assert float(residuals.max()) <= 4 + 1e-4  # unit vectors are at most 2 apart


def test_features_are_compared_and_not_pixels(images, monkeypatch):
    detector = made()
    monkeypatch.setattr(detector.restorer, "forward", lambda given: (1 - given, [], []))
    monkeypatch.setattr(detector.restorer, "encode", lambda _: [torch.ones(4, 4, 8, 8)] * 3)
    assert not detector.residuals(images).any()


def test_features_are_compared_by_their_direction(images, monkeypatch):
    detector, found = made(), [torch.rand(4, 4, side, side) for side in (32, 16, 8)]
    longer = iter((found, [3 * maps for maps in found]))
    monkeypatch.setattr(detector.restorer, "forward", lambda given: (given, [], []))
    monkeypatch.setattr(detector.restorer, "encode", lambda _: next(longer))
    assert float(detector.residuals(images).max()) < 1e-5


@pytest.mark.parametrize("scale", range(3))
def test_every_scale_is_in_the_map(scale, images, monkeypatch):
    detector, residuals = made(), torch.zeros(4, 3, 64, 64)
    residuals[:, scale, 20:40, 20:40] = 1
    monkeypatch.setattr(detector, "residuals", lambda _: residuals)
    found = detector.score(images, (64, 64)).map
    assert float((found[:, :, 30, 30] - found[:, :, 5, 5]).min()) > 0.5


def test_fewer_than_three_scales_are_refused():
    with pytest.raises(SettingsError, match="at least 3"):
        made(widths=(8, 16))
    with pytest.raises(SettingsError, match="at least 3"):
        made(residual_features="backbone", backbone=BackboneSettings(taps=(1, 2)))


def test_only_the_chosen_network_is_there():
    assert made().backbone is None
    outer = made(**OUTER)
    assert outer.backbone is not None
    trained = {id(p) for p in next(iter(outer.phases(Named()))).parameters}
    assert not trained & {id(p) for p in outer.backbone.parameters()}


def test_scales_weigh_the_same_on_the_normals(images):
    detector = made(standardise="scale")
    detector.fuse.add(detector.residuals(images))
    detector.fuse.finish()
    scaled = detector.fuse(detector.residuals(images))
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-3)
    torch.testing.assert_close(scaled.std((0, 2, 3), correction=0), torch.ones(3), rtol=1e-3, atol=0)


def test_positions_can_be_standardised_one_by_one(images):
    detector = made(standardise="position")
    detector.fuse.add(detector.residuals(images))
    detector.fuse.finish()
    detector.positions.add(detector.fuse(detector.residuals(images)))
    detector.positions.finish()
    maps = detector.score(images, (64, 64)).map
    torch.testing.assert_close(maps.mean(0), torch.zeros(1, 64, 64), rtol=0, atol=1e-3)


def test_the_image_score_is_the_maximum_or_the_deviation(images):
    for image, expected in (("maximum", lambda m: m.amax((1, 2, 3))), ("deviation", lambda m: m.std((1, 2, 3)))):
        scores = made(image=image).score(images, (64, 64))
        torch.testing.assert_close(scores.image, expected(scores.map), rtol=1e-3, atol=1e-5)


def test_without_mixing_only_memory_speaks(encoded):
    torch.manual_seed(3)
    plain = ClearMemory(16, dataclasses.replace(TINY, mixing=False))
    rows, _ = plain.memory(encoded.permute(0, 2, 3, 1).reshape(1, -1, 16))
    torch.testing.assert_close(plain(encoded)[0].permute(0, 2, 3, 1).reshape(1, -1, 16), rows)


def test_gain_and_offset_of_the_repair_are_fitted_where_asked():
    images = 0.5 + 0.3 * stripes(2)
    lit, found = 1.2 * images + 0.05, []
    for brightness in (False, True):
        detector = made(brightness=brightness, **OUTER)
        detector.restorer.forward = lambda _: (images, [], [])
        found.append(float(detector.residuals(lit).mean()))
    assert found[1] < 0.1 * found[0]


def test_the_memory_must_answer_where_the_encoding_is_hidden(encoded):
    """In training alone, whole positions at a time; what it is asked by is not hidden."""
    clear = ClearMemory(encoded.shape[1], dataclasses.replace(TINY, hidden=1.0)).train()
    opened(clear.forget, 20.0)
    opened(clear.write, 20.0)
    mixed, _, weights = clear(encoded)
    rows, asked = clear.memory(as_queries(encoded))
    torch.testing.assert_close(mixed, as_maps(rows, encoded))
    torch.testing.assert_close(weights, asked)
    assert not torch.allclose(clear.eval()(encoded)[0], mixed)
    torch.manual_seed(0)
    half = ClearMemory(encoded.shape[1], dataclasses.replace(TINY, hidden=0.5)).train()
    opened(half.forget, 20.0)
    opened(half.write, -20.0)
    seen = half(encoded)[0].detach().abs().amax(1)
    assert (seen < 1e-6).any()
    assert (seen > 0.1).any()
