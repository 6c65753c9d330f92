"""What must be present for a detector to be NLN; each point fails without it."""

import dataclasses

import pytest
import torch

from components.core.errors import SettingsError
from components.detectors.catalogue import settings_for
from components.detectors.methods.nln import NLN
from components.detectors.parts.autoencoders import KINDS, MEASURES
from tests.given import Pixels, learned, stripes

TINY = settings_for("nln", "tiny")


def made(**changes) -> NLN:
    torch.manual_seed(0)
    return NLN(dataclasses.replace(TINY, **changes)).eval()


def filled(data, **changes) -> NLN:
    """Untrained, with the latents and the scale of *data*."""
    detector = made(**changes)
    with torch.inference_mode():
        for phase in list(detector.phases(data))[1:]:
            for start in range(0, len(data), 4):
                phase.update(data.images[start : start + 4])
            phase.finish()
    return detector


@pytest.fixture(scope="module")
def data():
    return Pixels(stripes(10).clamp(0, 1))


@pytest.fixture
def images():
    return stripes(13)[10:].clamp(0, 1)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_learns_scores_and_comes_back_through_one_interface(kind, data, images, tmp_path):
    detector = learned(made(kind=kind, epochs=1), data, tmp_path)
    pasted = images.clone()
    pasted[:, :, 16:48, 16:48] = torch.tensor([0.9, 0.1, 0.2]).view(1, 3, 1, 1)
    again = made(kind=kind)
    again.load_state_dict(detector.state_dict())
    with torch.inference_mode():
        before, after = detector(images), detector(pasted)
        assert (after.image > before.image).all()
        assert (after.map - before.map)[:, :, 20:44, 20:44].mean() > (after.map - before.map)[:, :, :12].mean()
        torch.testing.assert_close(again(images).image, before.image, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "sides"),
    [
        ("ae", [{"encoder", "decoder"}]),
        ("vae", [{"encoder", "decoder", "mean", "spread"}]),
        ("aae", [{"encoder", "decoder"}, {"critic"}, {"encoder"}]),
        ("dae_disc", [{"encoder", "decoder"}, {"critic"}, {"encoder", "decoder"}]),
        ("ganomaly", [{"encoder", "decoder", "second"}, {"critic"}]),
    ],
)
def test_each_kind_has_the_steps_of_its_publication(kind, sides, data, images):
    detector = made(kind=kind, learning_rate=None, adversary_rate=None)
    phase = next(iter(detector.phases(data)))
    names = {id(p): n.split(".")[0] for n, p in detector.autoencoder.named_parameters()}
    assert [{names[id(p)] for p in player.parameters} for player in phase.players] == sides
    rates = [player.optimiser(player.parameters).defaults["lr"] for player in phase.players]
    own, other = KINDS[kind].rates
    assert rates == [own] + [other] * (len(sides) - 1)
    for player, side in zip(phase.players, sides, strict=True):  # each loss moves all that it trains
        detector.zero_grad()
        player.loss(images).backward()
        moved = {n.split(".")[0] for n, p in detector.autoencoder.named_parameters() if p.grad is not None}
        assert side <= moved


@pytest.mark.parametrize("kind", ["aae", "dae_disc", "ganomaly"])
def test_the_autoencoder_gets_no_gradient_of_the_critics_step(kind, images):
    autoencoder = made(kind=kind).autoencoder
    autoencoder.critic_loss(made().patches(images)).backward()
    assert all(p.grad is None for n, p in autoencoder.named_parameters() if not n.startswith("critic"))


def test_a_variational_latent_is_drawn_in_training_and_is_the_mean_in_scoring(images):
    autoencoder = made(kind="vae").autoencoder
    patches = made().patches(images)
    torch.testing.assert_close(autoencoder.encode(patches), autoencoder.encode(patches), rtol=0, atol=0)
    assert autoencoder.loss(patches) != autoencoder.loss(patches)


def test_a_variational_loss_has_the_divergence(images):
    """Of a decoder that says nothing, what is left draws the means to zero."""
    autoencoder = made(kind="vae").autoencoder
    torch.nn.init.zeros_(autoencoder.decoder[1].weight)
    patches = made().patches(images)
    autoencoder.loss(patches).backward()
    expected = autoencoder.encode(patches).mean(0) / TINY.patch**2
    torch.testing.assert_close(autoencoder.mean.bias.grad, expected)


def test_the_plain_kind_learns_to_rebuild(images):
    autoencoder = made(kind="ae").autoencoder
    patches = made().patches(images)
    rebuilt = autoencoder.decode(autoencoder.encode(patches))
    torch.testing.assert_close(autoencoder.loss(patches), torch.nn.functional.binary_cross_entropy(rebuilt, patches))


def test_the_latents_of_all_normals_are_kept(data):
    detector = filled(data, bank_size=200)
    assert int(detector.count) == 10 * 16
    with torch.inference_mode():
        latents = detector.autoencoder.encode(detector.patches(data.images))
    torch.testing.assert_close(detector.bank[:160], latents, rtol=1e-4, atol=1e-5)
    assert detector.owner[:160].tolist() == [i for i in range(10) for _ in range(16)]
    assert (detector.owner[160:] == -1).all()


@pytest.mark.parametrize(("stride", "cap", "per_side"), [(8, 70, 7), (16, 40, 4)])  # 490 by 70, 160 by 40
def test_under_its_cap_the_bank_holds_patches_of_all_positions(stride, cap, per_side, monkeypatch):
    """A fixed step of 7, or 4, would divide the patches of an image: one column of positions."""
    at = torch.linspace(0, 1, 64)
    place = torch.stack([at.expand(64, 64), at[:, None].expand(64, 64), torch.zeros(64, 64)])
    plain = NLN.__init__

    def with_places(self, *given):
        plain(self, *given)
        monkeypatch.setattr(
            self.autoencoder, "encode", lambda p: torch.cat([p.mean((2, 3)), torch.zeros(len(p), 5)], 1)
        )

    monkeypatch.setattr(NLN, "__init__", with_places)
    detector = filled(Pixels(place.expand(10, -1, -1, -1)), stride=stride, bank_size=cap)
    assert int(detector.count) == cap
    assert all(len(detector.bank[:, axis].unique()) == per_side for axis in (0, 1))
    assert set(detector.owner.tolist()) == set(range(10))


def test_of_fewer_latents_than_neighbours_all_count_and_nothing_else():
    detector = filled(Pixels(stripes(2).clamp(0, 1)), bank_size=100, neighbours=40)
    with torch.inference_mode():
        latents = detector.autoencoder.encode(detector.patches(stripes(3)[2:]))
        for barred, rows in ((None, range(32)), (torch.zeros(16), range(16, 32))):
            found, distances, share = detector.neighbours(latents, barred)
            exact = (latents[:, None] - detector.bank[None, list(rows)]).norm(dim=2)
            assert ((share > 0).sum(1) == len(rows)).all()
            torch.testing.assert_close((share * distances).sum(1), exact.mean(1), rtol=1e-3, atol=1e-5)
            assert float(found.abs().max()) < 1e3  # no row that holds nothing


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_normals_have_a_scale_of_real_distances(count):
    detector = filled(Pixels(stripes(count).clamp(0, 1)), neighbours=20)
    with torch.inference_mode():
        scores = detector(stripes(4)[3:].clamp(0, 1))
    assert float(detector.map_terms.mean.abs().max()) < 100  # rows that hold nothing are 10,000 away
    assert torch.isfinite(scores.map).all()


def test_neighbours_are_the_nearest_latents(data, images):
    detector = filled(data, bank_size=200, neighbours=3)
    with torch.inference_mode():
        latents = detector.autoencoder.encode(detector.patches(images))
        found, distances, share = detector.neighbours(latents)
        exact = (latents[:, None] - detector.bank[None, :160]).double().norm(dim=2).sort(1).values[:, :3]
    torch.testing.assert_close(distances.double(), exact, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close((latents[:, None] - found).norm(dim=2), distances)
    torch.testing.assert_close(share, torch.full_like(share, 1 / 3))


def test_the_error_is_against_the_neighbours_reconstructions_not_its_own(data):
    detector, images = filled(data, kind="ae", neighbours=2), torch.rand(3, 3, 64, 64)
    with torch.inference_mode():
        patches = detector.patches(images)
        found, distances, _ = detector.neighbours(detector.autoencoder.encode(patches))
        rebuilt = [detector.autoencoder.decode(found[:, k]) for k in range(2)]
        expected = torch.stack([(patches - r).abs().mean(1, keepdim=True) for r in rebuilt]).mean(0)
        error, distance = detector.terms(images).split(1, 1)
    torch.testing.assert_close(error, detector.stitch(expected))
    torch.testing.assert_close(detector.patches(distance)[:, 0, 0, 0], distances.mean(1))
    assert not torch.allclose(error, detector.own_error(images))


def test_what_the_neighbours_do_not_show_is_an_error_even_if_the_autoencoder_rebuilds_it(data, monkeypatch):
    """The idea of the paper: an autoencoder that copies everything is blind, its normal neighbours are not."""
    detector = filled(data, kind="ae")
    side, length = TINY.patch, 3 * TINY.patch**2
    detector.bank = torch.full((128, length), 0.5)
    detector.owner, detector.centre = torch.zeros(128), torch.zeros(length)
    monkeypatch.setattr(detector.autoencoder, "encode", lambda patches: patches.flatten(1))
    monkeypatch.setattr(detector.autoencoder, "decode", lambda latents: latents.view(-1, 3, side, side))
    image = torch.full((1, 3, 64, 64), 0.5)
    image[:, :, 20:24, 20:24] = 1.0
    assert float(detector.own_error(image).max()) == 0
    error = detector.terms(image)[:, :1]
    assert float(error[:, :, 20:24, 20:24].min()) == pytest.approx(0.5)
    assert float(error[:, :, 32:].max()) == 0


def test_every_neighbour_has_its_share_of_the_error(data, monkeypatch):
    detector = filled(data, kind="ae", neighbours=2)
    length = 3 * TINY.patch**2
    detector.bank = torch.full((128, length), 1.0)
    detector.bank[0] = 0.5
    detector.owner, detector.centre = torch.zeros(128), torch.zeros(length)
    monkeypatch.setattr(detector.autoencoder, "encode", lambda patches: patches.flatten(1))
    monkeypatch.setattr(detector.autoencoder, "decode", lambda latents: latents.view(-1, 3, TINY.patch, TINY.patch))
    error = detector.terms(torch.full((1, 3, 64, 64), 0.5))[:, :1]  # one neighbour is it, the other 0.5 away
    torch.testing.assert_close(error, torch.full((1, 1, 64, 64), 0.25))


def test_both_terms_are_on_the_scale_of_the_normals(data, images):
    detector = filled(data)
    with torch.inference_mode():
        scale, maps = detector.map_terms, detector.terms(images)
        error, distance = ((maps - scale.mean) / scale.std).split(1, 1)
        torch.testing.assert_close(detector(images).map, 0.25 * error + 0.75 * distance)
    assert (scale.std < 0.5).all()


def test_error_and_distance_are_weighed_on_the_scale_of_the_normals(data, images):
    only = {share: filled(data, share=share, map_share=share) for share in (0.0, 0.6, 1.0)}
    with torch.inference_mode():
        scores = {share: detector(images) for share, detector in only.items()}
    for part in ("image", "map"):
        error, distance, both = (getattr(scores[share], part) for share in (1.0, 0.0, 0.6))
        assert not torch.allclose(error, distance)
        assert float(distance.abs().min()) > 0
        torch.testing.assert_close(both, 0.6 * error + 0.4 * distance, rtol=1e-4, atol=1e-4)
    settings = NLN.presets["paper"]
    assert (settings.share, settings.map_share) == (0.6, 0.25)


def test_the_error_of_an_image_may_be_that_of_its_worst_spot(data, images):
    whole, spot, blurred = (filled(data, share=1.0, **c) for c in ({}, {"top": 1e-3}, {"blur": 2.0, "top": 1e-3}))
    with torch.inference_mode():
        error, smooth = whole.terms(images)[:, 0], blurred.terms(images)[:, 0]
        torch.testing.assert_close(whole._image_terms(whole.terms(images))[:, 0, 0, 0], error.mean((1, 2)))
        worst = error.flatten(1).topk(4).values.mean(1)  # a thousandth of 64 x 64
        torch.testing.assert_close(spot._image_terms(spot.terms(images))[:, 0, 0, 0], worst)
    assert (smooth.amax((1, 2)) < error.amax((1, 2))).all()
    torch.testing.assert_close(smooth.mean((1, 2)), error.mean((1, 2)), rtol=0.05, atol=0)


def test_normals_are_compared_with_others_when_the_scale_is_found(data):
    detector = filled(data, kind="ae", bank_size=200)
    with torch.inference_mode():
        patches = detector.patches(data.images)
        latents = detector.autoencoder.encode(patches)
        own = torch.arange(10).repeat_interleave(16)
        exact = (latents[:, None] - detector.bank[None, :160]).norm(dim=2)
        exact = exact.masked_fill(own[:, None] == own[None], torch.inf).sort(1).values[:, : TINY.neighbours]
    assert float(detector.map_terms.mean[0, 1]) == pytest.approx(float(exact.mean()), rel=1e-2)
    with torch.inference_mode():  # with its own latents in the bank a normal would be at no distance from itself
        assert float(detector.terms(data.images)[:, 1].mean()) < float(exact.mean())


def test_new_normals_score_near_zero(data, images):
    detector = filled(data)
    with torch.inference_mode():
        assert detector(images).image.abs().max() < 4
        assert float(detector(images).map.mean().abs()) < 1


def test_the_number_of_neighbours_is_fixed_by_the_settings(data, images):
    few, many = filled(data, neighbours=1), filled(data, neighbours=5)
    with torch.inference_mode():
        latents = few.autoencoder.encode(few.patches(images))
        assert few.neighbours(latents)[1].shape == (48, 1)
        assert many.neighbours(latents)[1].shape == (48, 5)


def test_the_plain_autoencoder_scores_with_the_same_checkpoint(data, images):
    detector = filled(data, kind="ae")
    plain = made(kind="ae", scoring="autoencoder")
    plain.load_state_dict(detector.state_dict())
    with torch.inference_mode():
        rebuilt = plain.autoencoder.decode(plain.autoencoder.encode(plain.patches(images)))
        error = plain.stitch((plain.patches(images) - rebuilt).abs().mean(1, keepdim=True))
        torch.testing.assert_close(plain(images).map, error)
        torch.testing.assert_close(plain(images).image, error.mean((1, 2, 3)))
        assert not torch.allclose(plain(images).image, detector(images).image)


@pytest.mark.parametrize("kind", ["dae_disc", "ganomaly"])
def test_the_error_of_an_embedding_is_the_mean_over_its_patch(kind, images):
    autoencoder = made(kind=kind).autoencoder
    patches = made().patches(images)
    latents = autoencoder.encode(patches)
    rebuilt = autoencoder.decode(latents)
    error = autoencoder.error(patches, latents, rebuilt)
    if kind == "dae_disc":
        expected = (autoencoder.critic.embed(patches) - autoencoder.critic.embed(rebuilt)).abs().mean(1)
    else:
        expected = (latents - autoencoder.second(rebuilt)).abs().mean(1)
    torch.testing.assert_close(error.mean((1, 2, 3)), expected, rtol=1e-3, atol=1e-6)
    assert error.flatten(1).std(1).min() > 0


@pytest.mark.parametrize(("stride", "count"), [(16, 16), (8, 49), (4, 169)])
def test_patches_cover_the_image_and_are_averaged_where_they_overlap(stride, count):
    detector = made(stride=stride)
    images = torch.rand(2, 3, 64, 64)
    patches = detector.patches(images)
    assert patches.shape == (2 * count, 3, 16, 16)
    torch.testing.assert_close(patches[1], images[0, :, :16, stride : stride + 16])
    torch.testing.assert_close(detector.stitch(patches[:, :1]), images[:, :1])


def test_patches_that_do_not_cover_the_image_are_refused():
    with pytest.raises(SettingsError, match="stride"):
        made(stride=13)
    with pytest.raises(SettingsError, match="patch"):
        made(patch=24)


def test_training_turns_patches_and_crops_more_where_asked(images):
    assert made().training_patches(images).shape[0] == 48
    torch.testing.assert_close(made().training_patches(images), made().patches(images))
    assert made(stride=8).training_patches(images).shape[0] == 48  # side by side all the same
    more = made(turned=True, crops=5)
    torch.manual_seed(3)
    drawn = [more.training_patches(images) for _ in range(4)]
    assert all(patches.shape == (48 + 15, 3, 16, 16) for patches in drawn)
    plain = more.patches(images)
    turns = [next(k for k in range(4) if torch.equal(torch.rot90(plain, k, (2, 3)), d[:48])) for d in drawn]
    assert len(set(turns)) > 1


def test_both_terms_can_be_standardised_position_by_position(data):
    detector = filled(data, positions=True)
    with torch.inference_mode():
        detector.seen[2] = 0
        maps = detector.positions(detector._as_new(data.images[:10], 2))
    torch.testing.assert_close(maps.mean(0), torch.zeros(2, 64, 64), rtol=0, atol=1e-2)
    torch.testing.assert_close(detector.map_terms.mean, maps.mean((0, 2, 3), keepdim=True), rtol=0, atol=1e-3)
    torch.testing.assert_close(detector.map_terms.std, maps.std((0, 2, 3), keepdim=True), rtol=1e-2, atol=0)


@pytest.mark.parametrize("scoring", ["nln", "autoencoder"])
def test_gain_and_offset_of_what_is_decoded_are_fitted_to_each_image_where_asked(scoring, data, images):
    """All patches of an image have one light, and each image has its own."""
    lit, found = torch.stack([images[0], 1.2 * images[1] + 0.05, 0.8 * images[2]]), []
    for brightness in (False, True):
        detector = filled(data, brightness=brightness, stride=8, scoring=scoring)
        normal = detector.patches(images)
        copies = detector.settings.neighbours if scoring == "nln" else 1
        detector.autoencoder.decode = lambda _, normal=normal, n=copies: normal.repeat_interleave(n, 0)
        with torch.inference_mode():
            error = detector.terms(lit)[:, :1] if scoring == "nln" else detector.own_error(lit)
        found.append(error.mean((1, 2, 3)))
    assert float(found[1].max()) < 0.1 * float(found[0][1:].min())


def test_structure_tells_a_patch_from_its_mean_where_cross_entropy_hardly_does():
    """On a grey pattern of little contrast the best cross-entropy is 98 % of that of the mean grey."""
    patches = 0.45 + 0.1 * stripes(4).clamp(0, 1)
    exact, grey = torch.logit(patches), torch.logit(patches.mean().expand_as(patches))
    shares = {name: float(measure(exact, patches) / measure(grey, patches)) for name, measure in MEASURES.items()}
    assert shares["entropy"] > 0.98
    assert shares["structure"] < 0.01


@pytest.mark.parametrize("kind", ["ae", "vae", "aae", "dae_disc", "ganomaly"])
def test_every_kind_learns_by_the_measure_that_is_asked_for(kind, data):
    losses = []
    for loss in ("entropy", "structure"):
        detector = made(kind=kind, loss=loss)
        patches = detector.patches(data.images[:2])
        torch.manual_seed(0)
        losses.append(float(detector.autoencoder.loss(patches)))
    assert losses[0] != pytest.approx(losses[1], rel=1e-2)
