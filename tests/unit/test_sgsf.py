"""What must be present for a detector to be SGSF; each point fails without it.

The saliency augmentation itself (weighted noise, adaptive threshold) is tested in ``test_strategies.py``.
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from components.detectors import settings_for
from components.detectors.blocks import focal
from components.detectors.sgsf import SGSF
from components.detectors.similarity import structural_difference
from tests.given import Named

TINY = settings_for("sgsf", "tiny")


def made(**changes) -> SGSF:
    torch.manual_seed(0)
    return SGSF(dataclasses.replace(TINY, **changes)).eval()


def batch(count: int = 8) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    masks = torch.zeros(count, 1, 64, 64)
    masks[:, :, 10:30, 20:40] = 1
    clean = torch.rand(count, 3, 64, 64)
    return torch.where(masks > 0, torch.rand_like(clean), clean), clean, masks


def test_it_learns_from_images_forged_by_saliency():
    for preset in ("paper", "cpu", "tiny"):
        data = Named()
        list(SGSF(dataclasses.replace(settings_for("sgsf", preset), widths=(2, 2, 2))).stages(data))
        assert data.asked[0][0] == ("saliency",)


def test_three_images_of_four_are_forged():
    forged, clean, masks = batch()
    images, target, mixed = made().mixed((forged, clean, masks))
    put_back = [bool((image == whole).all()) for image, whole in zip(images, clean, strict=True)]
    assert put_back == [False, False, False, True] * 2
    assert [bool(m.any()) for m in mixed] == [True, True, True, False] * 2
    assert torch.equal(target, clean)


def test_guidance_goes_into_every_scale_of_the_segmentation():
    detector, images = made(), batch(2)[0]
    guides = [g.detach().requires_grad_() for g in detector.guidance(images)[0]]
    assert [g.shape[2] for g in guides] == [32, 16, 8]
    fused = []
    for fusion in detector.segmentation.fusions:
        fusion.register_forward_hook(lambda *parts: fused.append(parts[2]))
    logits = detector.segmentation(images, guides)
    assert all(grad.any() for grad in torch.autograd.grad(logits.square().sum(), guides, retain_graph=True))
    for level, found in enumerate(
        fused
    ):  # each skip has the guidance of its own level, and the encoder that of finer ones
        grads = torch.autograd.grad(found.square().sum(), guides, retain_graph=True, allow_unused=True)
        assert [g is not None and bool(g.any()) for g in grads] == [i <= level for i in range(3)]


def test_without_guidance_the_map_knows_nothing_of_it():
    detector, images = made(guided=False), batch(2)[0]
    before = detector.maps(images)[0]
    with torch.no_grad():
        for parameter in detector.guidance.parameters():
            parameter.add_(0.3)
    torch.testing.assert_close(detector.maps(images)[0], before)


def test_the_guidance_network_has_no_way_around_its_bottleneck():
    guidance = made().guidance
    guidance.encoder.levels[-1].register_forward_hook(lambda *parts: torch.zeros_like(parts[2]))
    maps, repaired = guidance(torch.rand(2, 3, 64, 64))
    for x in (*maps, repaired):
        torch.testing.assert_close(x[0], x[1])


def test_both_networks_learn_together_and_segmentation_reaches_the_guidance():
    detector = made()
    (stage,) = detector.stages(Named())
    assert {id(p) for p in stage.parameters} == {id(p) for p in detector.parameters()}
    for detach in (False, True):
        detector = made(detach=detach, weight=0.0)
        detector.loss(batch()).backward()
        reached = any(p.grad is not None and p.grad.any() for p in detector.guidance.parameters())
        assert reached is not detach


def test_loss_is_focal_and_squared_error_and_ssim_against_the_clean_image():
    detector, (forged, clean, masks) = made(weight=2.0, normal=100), batch()
    with torch.no_grad():
        logits, repaired = detector.maps(forged)
        wanted = focal(logits, masks, TINY.gamma) + 2 * F.mse_loss(repaired, clean)
        wanted += 2 * structural_difference(repaired, clean).mean()
        assert float(detector.loss((forged, clean, masks))) == pytest.approx(float(wanted), rel=1e-5)


def test_learning_repairs_what_was_forged():
    detector, (forged, _, masks) = made(), batch()
    clean = torch.full_like(forged, 0.3)
    forged = torch.where(masks > 0, forged, clean)
    optimiser = torch.optim.Adam(detector.parameters(), 1e-2)
    detector.train()
    for _ in range(80):
        optimiser.zero_grad()
        detector.loss((forged, clean, masks)).backward()
        optimiser.step()
    repaired = detector.maps(forged)[1]
    inside = masks.expand_as(clean) > 0
    assert (repaired - clean)[inside].abs().mean() < 0.5 * (forged - clean)[inside].abs().mean()


def test_map_is_the_segmentation_and_the_image_score_its_largest_local_mean(monkeypatch):
    detector = made()
    logits = torch.full((2, 1, 64, 64), -20.0)
    logits[0, 0, 5, 5] = 20.0  # a single pixel
    logits[1, 0, 30:40, 30:40] = 2.0  # a patch that is less certain
    monkeypatch.setattr(detector, "maps", lambda _: (logits, None))
    scores = detector.score(torch.zeros(2, 3, 64, 64), (64, 64))
    torch.testing.assert_close(scores.map, logits.sigmoid())
    assert float(scores.image[0]) == pytest.approx(1 / 25, rel=1e-3)
    assert float(scores.image[1]) == pytest.approx(float(torch.tensor(2.0).sigmoid()), rel=1e-3)


def test_the_rate_falls_at_half_seven_tenths_and_nine_tenths():
    factor = SGSF(dataclasses.replace(settings_for("sgsf", "paper"), widths=(2, 2))).factor
    found = [factor(done) for done in (0.0, 0.49, 0.5, 0.69, 0.7, 0.9)]
    assert found == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.001])


def test_folded_pixels_come_back_where_they_were():
    detector = made()
    images = torch.rand(1, 3, 64, 64)
    guides, repaired = detector.guidance(images)
    assert [g.shape[2] for g in guides] == [32, 16, 8]
    assert repaired.shape == images.shape
    assert detector.segmentation(images, guides).shape == (1, 1, 64, 64)
    fold, unfold = detector.guidance.fold, detector.guidance.unfold
    torch.testing.assert_close(unfold(fold(images)), images)
