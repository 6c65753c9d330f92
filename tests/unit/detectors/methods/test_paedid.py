"""What must be present for a detector to be PAEDID; each point fails without it."""

import dataclasses

import pytest
import torch

from components.core.errors import SettingsError
from components.detectors.catalogue import settings_for
from components.detectors.contract import OnePass, Optimise
from components.detectors.methods.paedid import PAEDID
from components.detectors.parts.blocks import POSITIONS
from components.detectors.parts.similarity import structural_difference
from tests.given import Pixels, learned, passed

TINY = settings_for("paedid", "tiny", {"threshold": 3.0, "block": 0.5})  # of the other presets


def made(**changes) -> PAEDID:
    torch.manual_seed(0)
    return PAEDID(dataclasses.replace(TINY, **changes)).eval()


def trained(folder, data, **changes) -> PAEDID:
    return learned(made(**{"epochs": 40, **changes}), data, folder)


@pytest.fixture(scope="module")
def data():
    """The same stripes twenty times, with noise."""
    torch.manual_seed(1)
    row = 0.5 + 0.2 * torch.sin(torch.linspace(0, 25, 64))
    return Pixels(row.expand(20, 3, 64, 64) + 0.02 * torch.randn(20, 3, 64, 64))


@pytest.fixture(scope="module")
def fitted(data, tmp_path_factory):
    return trained(tmp_path_factory.mktemp("checkpoint"), data)


@pytest.fixture
def defective(data):
    images = data.images[:2].clone()
    images[:, :, 20:30, 30:44] = 0.95
    return images


def last(detector, images):
    with torch.inference_mode():
        return list(detector.decompose(images))[-1]


def test_a_patch_changes_its_own_code_and_no_other(data):
    detector, images = made(), data.images[:1]
    changed = images.clone()
    changed[:, :, 16:24, 40:48] = 1.0  # the patch in row 2, column 5
    apart = (detector.encoder(changed) - detector.encoder(images)).abs().amax(1)[0] > 1e-6
    assert apart.nonzero().tolist() == [[2, 5]]


@pytest.mark.parametrize("patch", [4, 8, 16])
def test_codes_and_background_fit_every_patch_size(patch, data):
    detector = made(patch=patch)
    codes = detector.encoder(data.images[:1])
    assert codes.shape == (1, TINY.code, 64 // patch, 64 // patch)
    assert detector.prior(data.images[:1]).shape == (1, 3, 64, 64)


def test_a_patch_size_that_does_not_fit_is_refused():
    with pytest.raises(SettingsError, match="power of two"):
        made(patch=12)


def test_the_background_is_learned_from_normal_images_alone(data):
    detector = made()  # the data have no synthetic anomalies to ask for
    phases = list(detector.phases(data))
    assert [s.name for s in phases] == ["background", "codes", "distances", "noise"]
    assert [type(s) for s in phases] == [Optimise, OnePass, OnePass, OnePass]
    assert all(s.table is data for s in phases)


def test_the_prior_gives_back_normals_and_not_what_it_never_saw(fitted, data, defective):
    with torch.inference_mode():
        normal = (fitted.prior(data.images[:2]) - data.images[:2]).abs().mean()
        inside = (fitted.prior(defective) - defective)[:, :, 20:30, 30:44].abs().mean()
    assert inside > 2 * normal


def test_training_rebuilds_from_noise(data):
    detector, met = made(), []
    detector.encoder.register_forward_pre_hook(lambda _, given: met.append(given[0]))
    detector.loss(data.images[:4])
    assert float((met[0] - data.images[:4]).std()) == pytest.approx(TINY.noise, rel=0.1)


def test_the_loss_has_two_parts(data):
    detector, images = made(noise=0.0, structure=2.0), data.images[:4]
    with torch.no_grad():
        rebuilt = detector.background(detector.encoder(images))
        parts = (rebuilt - images).square().mean(), structural_difference(rebuilt, images).mean()
        assert min(parts) > 1e-3
        torch.testing.assert_close(detector.loss(images), parts[0] + 2 * parts[1])


def test_the_defect_found_so_far_is_taken_off_before_the_prior_looks_again(fitted, defective, monkeypatch):
    met, prior = [], fitted.prior
    monkeypatch.setattr(fitted, "prior", lambda images: met.append(images) or prior(images))
    with torch.inference_mode():
        steps = list(fitted.decompose(defective))
    assert len(steps) == TINY.steps > 1
    torch.testing.assert_close(met[0], defective)
    for (_, defect), given in zip(steps, met[2:], strict=False):
        torch.testing.assert_close(given, defective - defect)
    assert steps[0][1].abs().sum() > 0


def test_more_steps_find_more_of_the_defect(fitted, defective):
    with torch.inference_mode():
        steps = list(fitted.decompose(defective))
    amounts = [defect[:, :, 20:30, 30:44].abs().mean().item() for _, defect in steps]
    assert amounts[-1] > amounts[0]


def test_data_and_prior_are_weighed_in_the_background(fitted, data):
    images = data.images[:1]
    with torch.inference_mode():
        prior = fitted.prior(images)
        for weight in (0.0, 5.0, 1e6):
            other = made(prior=weight, damping=0.0, steps=1, threshold=1e6, block=0.0)
            other.load_state_dict(fitted.state_dict())
            background, _ = last(other, images)
            torch.testing.assert_close(background, (images + weight * prior) / (1 + weight), atol=1e-5, rtol=1e-4)


def test_the_segmentation_is_the_defect_and_exactly_zero_elsewhere(fitted, defective):
    with torch.inference_mode():
        scores = fitted(defective)
    _, defect = last(fitted, defective)
    torch.testing.assert_close(scores.map, defect.square().sum(1, keepdim=True).sqrt())
    assert (scores.map[:, :, 21:29, 31:43] > 0).float().mean() > 0.95
    outside = scores.map.clone()
    outside[:, :, 16:34, 26:48] = 0
    assert (outside == 0).float().mean() > 0.95
    assert (scores.map == 0).any()


def test_soft_threshold_and_sign():
    residual = torch.tensor([0.3, 0.05, -0.3]).view(1, 3, 1, 1)
    level = torch.tensor(0.1)
    for sign, expected in (("both", [0.2, 0, -0.2]), ("bright", [0.2, 0, 0]), ("dark", [0, 0, -0.2])):
        found = made(sign=sign, block=0.0).sparse(residual, level)
        torch.testing.assert_close(found.flatten(), torch.tensor(expected))


def test_a_lone_weak_pixel_is_shrunk_to_zero_and_a_block_is_not():
    detector = made(block=0.5, block_side=5)
    detector.deviation.fill_(0.02)
    residual = torch.zeros(1, 3, 32, 32)
    residual[:, :, 4, 4] = 0.1
    residual[:, :, 16:24, 16:24] = 0.1
    found = detector.sparse(residual, torch.tensor(0.06))
    assert (found[:, :, 4, 4] == 0).all()
    assert (found[:, :, 18:22, 18:22] > 0).all()
    without = made(block=0.0).sparse(residual, torch.tensor(0.06))
    assert (without[:, :, 4, 4] > 0).all()


@pytest.mark.parametrize(("size", "side"), [(256, 7), (128, 3), (64, 3), (384, 11)])
def test_the_neighbourhood_grows_with_the_image(size, side):
    detector = made(size=size, block=0.5)
    residual = torch.zeros(1, 3, 32, 32)
    residual[:, :, 16, 16] = 1
    kernel = made(size=size, block=0.5, block_side=side)
    kernel.deviation.fill_(0.02)
    detector.deviation.fill_(0.02)
    found = [d.sparse(residual, torch.tensor(0.06)) for d in (detector, kernel)]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    other = made(size=size, block=0.5, block_side=side + 2)
    other.deviation.fill_(0.02)
    assert not torch.allclose(other.sparse(residual, torch.tensor(0.06)), found[0])


def test_weights_are_small_where_a_code_is_far_from_the_normal_ones(fitted, defective):
    with torch.inference_mode():
        weights, plain = fitted.weighting(defective), made(weights=False).weighting(defective)
    torch.testing.assert_close(weights.mean((1, 2, 3)), torch.ones(2))
    assert (weights[:, :, 22:28, 34:40].amax((1, 2, 3)) < weights[:, :, 48:, :16].amin((1, 2, 3))).all()
    assert (plain == 1).all()


def test_lambda_comes_from_the_residuals_of_the_normals(fitted, data):
    with torch.inference_mode():
        residual = (data.images - fitted.prior(data.images)).flatten()
    deviation = 1.4826 * (residual - residual.median()).abs().median()
    assert float(fitted.deviation) == pytest.approx(float(deviation), rel=0.05)
    assert made().deviation != fitted.deviation


def test_a_brighter_image_is_no_defect_when_brightness_is_fitted(fitted, data):
    relit = made(brightness=True)
    relit.load_state_dict(fitted.state_dict())
    brighter = 1.3 * data.images[:2] + 0.1
    with torch.inference_mode():
        clean = relit.prior(data.images[:2])
        torch.testing.assert_close(clean, fitted.prior(data.images[:2]), atol=0.03, rtol=0)
        assert (relit(brighter).map > 0).float().mean() < 0.5 * (fitted(brighter).map > 0).float().mean()


def test_the_image_score_is_the_mean_of_the_largest(fitted, defective):
    with torch.inference_mode():
        scores = fitted(defective)
    torch.testing.assert_close(scores.image, scores.map.flatten(1).topk(round(0.001 * 64**2)).values.mean(1))


def test_the_deviation_can_be_that_of_each_position():
    torch.manual_seed(0)
    noise = torch.full((64, 64), 0.01)
    noise[:, 32:] = 0.2
    images = (0.5 + noise * torch.randn(20, 3, 64, 64)).clamp(0, 1)
    detector = made(positions=True, weights=False)
    detector.prior = lambda x: torch.full_like(x, 0.5)
    with torch.inference_mode():
        passed(detector, "noise", images)
        assert (detector.local == 1).all()  # until the phase behind, which may be undone
        passed(detector, POSITIONS)
    assert detector.local.min() == 1
    assert detector.local[..., 32:].mean() > 2 * detector.local[..., :32].mean()


def test_lambda_rises_where_all_around_the_background_is_missed():
    """In grain that no background follows a speck must stand out of the grain; elsewhere nothing changes."""
    torch.manual_seed(0)
    detector, flat = made(surroundings=9), torch.full((1, 3, 64, 64), 0.5)
    detector.deviation.fill_(0.01)
    images = flat.clone()
    images[..., 32:] += 0.1 * torch.randn(1, 3, 64, 32)
    scale = detector.scale(images, flat)
    assert scale.shape == (1, 1, 64, 64)
    assert (scale[..., :24] == 0.01).all()
    assert scale[..., 40:].mean() == pytest.approx(0.1, rel=0.1)  # of normal noise its deviation
    speck = flat.clone()
    speck[..., 20:22, 10:12] += 0.4
    assert detector.scale(speck, flat).max() < 0.4 / 4  # what is small does not hide itself
    assert (made(surroundings=0).scale(images, flat) == made().deviation).all()


def test_surroundings_have_a_middle():
    with pytest.raises(SettingsError, match="odd"):
        made(surroundings=8)
