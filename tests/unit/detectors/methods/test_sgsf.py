"""What must be present for a detector to be SGSF; each point fails without it.

The saliency augmentation itself (weighted noise, adaptive threshold) is tested in ``test_strategies.py``.
"""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from components.detectors.catalogue import settings_for
from components.detectors.methods.sgsf import SGSF
from components.detectors.parts.blocks import focal
from components.detectors.parts.gallery import Gallery
from components.detectors.parts.similarity import structural_difference
from tests.given import Named

TINY = settings_for("sgsf", "tiny", {"guidance": "self"})


class Repeats(Named):
    """Two normal images and *copies* of each."""

    def __init__(self, copies):
        super().__init__()
        self.copies = copies

    def pixels(self, size):
        return super().pixels(size) * 2 * self.copies


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
    for preset, wanted in (("paper", ("saliency",)), ("cpu", ("saliency", "shade")), ("tiny", ("saliency",))):
        data = Named()
        list(SGSF(dataclasses.replace(settings_for("sgsf", preset), widths=(2, 2, 2))).phases(data))
        assert data.asked[0][0] == wanted


def test_features_of_clean_images_come_before_those_of_forged_ones():
    class Both(Named):
        def anomalies(self, *_):
            return forged

        def features(self, _):
            return [type(self).__name__]

    class Forged(Both):
        def before(self, _):
            return ["Before"]

    forged = Forged()
    (phase,) = made(guidance="frozen").phases(Both())
    clean, seen = phase.table.tables[3:]
    assert (clean, seen) == (["Before"], ["Forged"])


def test_few_normal_images_get_more_epochs_whatever_the_copies():
    for copies in (1, 4):
        (phase,) = made(draws=10, epochs=2, copies=copies).phases(Repeats(copies))
        assert phase.epochs == 5  # two normal images


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
    before = detector.maps(images, images)[0]
    with torch.no_grad():
        for parameter in detector.guidance.parameters():
            parameter.add_(0.3)
    torch.testing.assert_close(detector.maps(images, images)[0], before)


def test_the_guidance_network_has_no_way_around_its_bottleneck():
    guidance = made().guidance
    guidance.encoder.register_forward_hook(lambda *parts: torch.zeros_like(parts[2]))
    maps, repaired = guidance(torch.rand(2, 3, 64, 64))
    for x in (*maps, repaired):
        torch.testing.assert_close(x[0], x[1])


def test_both_networks_learn_together_and_segmentation_reaches_the_guidance():
    detector = made()
    (phase,) = detector.phases(Named())
    assert {id(p) for p in phase.parameters} == {id(p) for p in detector.parameters()}
    for detach in (False, True):
        detector = made(detach=detach, weight=0.0)
        detector.loss(batch()).backward()
        reached = any(p.grad is not None and p.grad.any() for p in detector.guidance.parameters())
        assert reached is not detach


def test_loss_is_focal_and_squared_error_and_ssim_against_the_clean_image():
    detector, (forged, clean, masks) = made(weight=2.0, normal=100), batch()
    with torch.no_grad():
        logits, repaired = detector.maps(forged, forged)
        wanted = focal(logits, masks, TINY.gamma) + 2 * F.mse_loss(repaired, clean)
        wanted += 2 * structural_difference(repaired, clean).mean()
        assert float(detector.loss((forged, clean, masks))) == pytest.approx(float(wanted), rel=1e-5)


@pytest.mark.slow
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
    repaired = detector.maps(forged, forged)[1]
    inside = masks.expand_as(clean) > 0
    assert (repaired - clean)[inside].abs().mean() < 0.5 * (forged - clean)[inside].abs().mean()


def test_map_is_the_segmentation_and_the_image_score_its_largest_local_mean(monkeypatch):
    detector = made()
    logits = torch.full((2, 1, 64, 64), -20.0)
    logits[0, 0, 5, 5] = 20.0  # a single pixel
    logits[1, 0, 30:40, 30:40] = 2.0  # a patch that is less certain
    monkeypatch.setattr(detector, "maps", lambda *_: (logits, None))
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
    fold, unfold = detector.guidance.encoder.fold, detector.guidance.unfold
    torch.testing.assert_close(unfold(fold(images)), images)


DIRECTIONS = torch.tensor([[1.0, 0, 0], [0.9, 0.1, 0], [0.7, 0.3, 0], [0, 0, 1]])


def features(directions: torch.Tensor) -> list[torch.Tensor]:
    """Deepest maps (B, 3, 2, 2) whose mean points to *directions*, behind a finer tap that does not count."""
    spread = torch.tensor([[[0.5, 1.5], [1.5, 0.5]]])
    return [torch.rand(len(directions), 5, 4, 4), directions[:, :, None, None] * spread]


def hung(count: int = 5) -> Gallery:
    """A gallery of four grey images, 0.0 to 0.6, with one place left over."""
    gallery = Gallery(count, 8, 3)
    gallery.expect(4)
    greys = torch.arange(4) / 5
    gallery.add((greys[:, None, None, None].expand(4, 3, 8, 8), features(DIRECTIONS)))
    return gallery


def test_the_most_similar_normal_image_is_found_by_its_mean_features():
    asked = torch.tensor([[2.0, 0, 0], [0.75, 0.3, 0], [0.1, 0, 5]])
    found = hung().nearest(features(asked))
    torch.testing.assert_close(found[:, 0, 0, 0], torch.tensor([0.0, 0.4, 0.6]))


def test_training_draws_from_the_similar_ones_without_the_image_itself():
    gallery, drawn = hung(), set()
    torch.manual_seed(0)
    for _ in range(40):
        drawn |= {round(float(v), 1) for v in gallery.drawn(features(DIRECTIONS[:1]), 3)[:, 0, 0, 0]}
    assert drawn == {0.2, 0.4, 0.6}
    assert {round(float(gallery.drawn(features(DIRECTIONS[:1]), 1)[0, 0, 0, 0]), 1)} == {0.2}


def test_a_gallery_without_another_image_gives_the_image_itself():
    gallery = Gallery(2, 8, 3)
    gallery.add((torch.full((1, 3, 8, 8), 0.4), features(DIRECTIONS[:1])))
    torch.testing.assert_close(gallery.drawn(features(DIRECTIONS[:1]), 2), torch.full((1, 3, 8, 8), 0.4))


def test_a_small_gallery_keeps_a_drawn_subset_whatever_period_the_set_has():
    torch.manual_seed(0)
    gallery = Gallery(40, 8, 3)
    gallery.expect(160)  # four cameras in turn: every fourth image would be of one
    for first in range(0, 160, 16):
        values = (torch.arange(first, first + 16) % 4 / 10)[:, None, None, None]
        gallery.add((values.expand(-1, 3, 8, 8), features(DIRECTIONS[:1].expand(16, 3))))
    shown = (gallery.images[:, 0, 0, 0].float() / 25.5).round()
    assert shown.int().bincount().tolist() == pytest.approx([10] * 4, abs=6)
    assert gallery.signatures.any(1).all()


def contrasted(**changes) -> tuple[SGSF, list[list[torch.Tensor]]]:
    """A detector guided by contrast with two images in its gallery, and the features of both."""
    detector = made(guidance="contrast", **changes)
    images = torch.stack([torch.full((3, 64, 64), 0.2), torch.rand(3, 64, 64)])
    known = detector.prepared(images)
    detector.gallery.add(known)
    return detector, [[f[i : i + 1] for f in known[1]] for i in range(2)]


def test_guidance_by_contrast_rebuilds_the_similar_image_as_it_is():
    detector, known = contrasted(normal=100, weight=2.0)
    forged, clean, masks = batch(1)
    normal = detector.gallery.images[1:2].float() / 255  # the other one: the image itself is left out
    with torch.no_grad():
        logits, rebuilt = detector.maps(forged, normal)
        wanted = focal(logits, masks, TINY.gamma) + 2 * F.mse_loss(rebuilt, normal)
        wanted += 2 * structural_difference(rebuilt, normal).mean()
        assert float(detector.loss((forged, clean, masks, known[0]))) == pytest.approx(float(wanted), rel=1e-5)


def test_guidance_by_contrast_scores_beside_the_nearest_image():
    detector, known = contrasted()
    images = batch(1)[0]
    with torch.no_grad():
        for i in range(2):
            wanted = detector.maps(images, detector.gallery.images[i : i + 1].float() / 255)[0].sigmoid()
            torch.testing.assert_close(detector.score((images, known[i]), (64, 64)).map, wanted)


def test_without_guidance_no_gallery_is_kept():
    assert made(guidance="contrast", guided=False).gallery is None
    assert made().gallery is None


def seeing(**changes) -> tuple[SGSF, tuple[torch.Tensor, ...], list[list[torch.Tensor]]]:
    """A detector guided from a frozen backbone, a batch, and the features of its clean and of its forged images."""
    detector, drawn = made(guidance="frozen", **changes), batch(4)
    return detector, drawn, [list(detector.backbone(drawn[i])) for i in (1, 0)]


def test_a_frozen_encoder_leaves_no_way_around_the_bottleneck():
    detector, _, (clean, _) = seeing()
    assert detector.guidance.encoder(clean).shape == (4, TINY.widths[-1], 4, 4)
    detector.guidance.encoder.register_forward_hook(lambda *parts: torch.zeros_like(parts[2]))
    maps, repaired = detector.guidance(clean)
    assert [m.shape[2] for m in maps] == [32, 16, 8]
    for x in (*maps, repaired):
        torch.testing.assert_close(x[0], x[1])


def test_guidance_from_a_frozen_backbone_repairs_what_is_seen_of_the_forged_image():
    detector, (forged, clean, masks), (good, bad) = seeing(weight=2.0)  # the last of four is put back
    seen = [torch.cat([b[:3], g[3:]]) for g, b in zip(good, bad, strict=True)]
    images = torch.cat([forged[:3], clean[3:]])
    masks = torch.cat([masks[:3], torch.zeros_like(masks[3:])])
    with torch.no_grad():
        logits, repaired = detector.maps(images, seen)
        wanted = focal(logits, masks, TINY.gamma) + 2 * F.mse_loss(repaired, clean)
        wanted += 2 * structural_difference(repaired, clean).mean()
        assert float(detector.loss((forged, clean, batch(4)[2], good, bad))) == pytest.approx(float(wanted), rel=1e-5)
        scores = detector.score((images, seen), (64, 64))
    torch.testing.assert_close(scores.map, logits.sigmoid())


def test_the_backbone_learns_nothing_and_the_rest_of_the_guidance_does():
    detector, drawn, features = seeing(weight=0.0)
    detector.train()
    detector.loss((*drawn, *features)).backward()
    assert all(p.grad is None for p in detector.backbone.parameters())
    assert all(p.grad is not None for p in detector.guidance.encoder.parameters())


@pytest.mark.parametrize(("taps", "channels"), [((1, 2), (24, 40)), ((4,), (320,))])
def test_taps_finer_and_coarser_than_the_bottleneck_come_to_its_size(taps, channels):
    detector, _, (clean, _) = seeing(backbone=dataclasses.replace(TINY.backbone, taps=taps))
    assert tuple(x.shape[1] for x in clean) == channels
    assert detector.guidance.encoder(clean).shape[2:] == (4, 4)


def test_a_graph_holds_the_backbone_only_where_it_guides():
    assert made().backbone is None
    assert made(guidance="frozen", guided=False).backbone is None
    assert made(guidance="frozen").gallery is None
