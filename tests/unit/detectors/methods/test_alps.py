"""What must be present for a detector to be ALPS; each point fails without it."""

import dataclasses

import pytest
import torch
from lightning_fabric import Fabric

from components.detectors.catalogue import settings_for
from components.detectors.contract import OnePass, Optimise
from components.detectors.methods.alps import ALPS, Down
from components.training.checkpoint import Checkpoint
from components.training.loop import Loop
from tests.given import Pixels, learned, stripes

TINY = settings_for("alps", "tiny")


def made(**changes) -> ALPS:
    torch.manual_seed(0)
    return ALPS(dataclasses.replace(TINY, **changes)).eval()


def reached(**changes) -> ALPS:
    """Untrained, with the bound at its full size."""
    detector = made(**changes)
    detector.strength.fill_(1)
    return detector


def trained(tmp_path, data, **changes) -> ALPS:
    return learned(made(**changes), data, tmp_path)


@pytest.fixture
def data():
    return Pixels(stripes(10))


@pytest.fixture
def images(data):
    return data.images[:3]


def gradients(part) -> float:
    return sum(float(p.grad.abs().sum()) for p in part.parameters() if p.grad is not None)


def test_the_distorter_is_a_convolutional_encoder_of_its_own_that_reads_the_image(images):
    detector = reached()
    assert isinstance(detector.distorter, Down)
    shared = {id(p) for p in detector.distorter.parameters()} & {id(p) for p in detector.encoder.parameters()}
    assert not shared
    latent = detector.encoder(images)
    one, other = detector.perturbation(images, latent), detector.perturbation(images.flip(3), latent)
    assert one.shape == latent.shape
    assert not torch.allclose(one, other)  # of the image, not a fixed or random direction
    torch.testing.assert_close(one, detector.perturbation(images, latent))


def test_a_distorter_step_raises_the_error_that_an_autoencoder_step_lowers(images):
    detector = reached().train()
    for loss, part, sign in (
        (detector.distorter_loss, detector.distorter, 1),
        (detector.loss, torch.nn.ModuleList([detector.encoder, detector.decoder]), -1),
    ):
        before = detector.error(images, True).mean().item()
        optimiser = torch.optim.Adam(part.parameters(), lr=1e-3)
        for _ in range(10):
            optimiser.zero_grad()
            loss(images).backward()
            optimiser.step()
        assert sign * (detector.error(images, True).mean().item() - before) > 0


def test_two_optimisers_take_turns_on_disjoint_weights(data):
    detector = made()
    game, ratio = detector.phases(data)
    assert (type(game), type(ratio)) == (Optimise, OnePass)
    autoencoder, distorter = ({id(p) for p in player.parameters} for player in game.players)
    assert not autoencoder & distorter
    assert distorter == {id(p) for p in detector.distorter.parameters()}
    assert autoencoder == {id(p) for part in (detector.encoder, detector.decoder) for p in part.parameters()}


def test_the_encoder_gets_no_gradient_of_the_distorter(images):
    detector = reached()
    detector.distorter_loss(images).backward()
    assert gradients(detector.encoder) == 0
    assert gradients(detector.distorter) > 0


def test_the_latent_is_perturbed_and_the_pixels_are_not(images, monkeypatch):
    detector, decoded, encoded = reached(), [], []
    detector.decoder.register_forward_pre_hook(lambda _, given: decoded.append(given[0]))
    detector.encoder.register_forward_pre_hook(lambda _, given: encoded.append(given[0]))
    monkeypatch.setattr(detector, "perturbation", lambda _, latent: torch.full_like(latent, 0.25))
    detector.loss(images)
    assert all(given is images for given in encoded)
    latent = detector.encoder(images)
    torch.testing.assert_close(decoded[0], latent)
    torch.testing.assert_close(decoded[1], latent + 0.25)  # the autoencoder learns from this one


def test_the_autoencoder_learns_from_both_errors(images, monkeypatch):
    detector = reached(clean=0.25)
    monkeypatch.setattr(detector, "perturbation", lambda _, latent: torch.full_like(latent, 100.0))
    perturbed, clean = (detector.error(images, path).mean() for path in (True, False))
    assert abs(float(perturbed - clean)) > 1e-2 * float(clean)
    torch.testing.assert_close(detector.loss(images), perturbed + 0.25 * clean, rtol=1e-6, atol=0)


@pytest.mark.parametrize("factor", [1.0, 100.0])
def test_a_perturbation_is_bounded_in_units_of_the_latent(images, factor):
    detector = reached(bound=0.2)
    with torch.no_grad():
        for parameter in detector.distorter.parameters():
            parameter.mul_(50)
    latent = factor * detector.encoder(images)
    added = detector.perturbation(images, latent)
    scale = latent.square().mean((1, 2, 3)).sqrt()
    assert (added.abs().amax((1, 2, 3)) <= 0.2001 * scale).all()
    assert (added.abs().amax((1, 2, 3)) > 0.1 * scale).all()


def test_the_latent_has_nothing_to_gain_from_growing(images):
    """Its scale gets a gradient through the bound: what a perturbation adds grows with it."""
    detector = reached()
    latent = detector.encoder(images).detach().requires_grad_()
    detector.perturbation(images, latent).square().sum().backward()
    assert (latent.grad * latent).sum() > 0


def test_a_mask_is_the_other_kind_of_perturbation(images):
    detector = reached(perturbation="mask", bound=1.0)
    latent = detector.encoder(images)
    raw = detector.distorter(images)
    torch.testing.assert_close(latent + detector.perturbation(images, latent), latent * torch.sigmoid(-raw))


def test_the_bound_grows_over_the_first_third(data):
    detector = made()
    detector.train()
    game, _ = detector.phases(data)
    steps = game.epochs * -(-len(data) // game.batch_size)
    reached_at = []
    for _ in range(steps):
        game.loss(data.images[:4])
        reached_at.append(float(detector.strength))
    assert 0 < reached_at[0] < reached_at[1] < 1
    assert [strength >= 0.9999 for strength in reached_at].index(True) + 1 == steps // 3


@pytest.mark.slow
def test_training_withstands_what_it_was_trained_against(data, tmp_path):
    """Against the same distorter, an autoencoder that played the game loses less than one that did not."""
    player = trained(tmp_path / "game", data, epochs=30, bound=0.5)
    plain = trained(tmp_path / "plain", data, epochs=30, distorter=False)
    errors = {}
    for name, detector in (("player", player), ("plain", plain)):
        with torch.no_grad():
            latent = detector.encoder(data.images)
            strength = latent.square().mean().sqrt() * 0.5
            torch.manual_seed(5)
            moved = detector.decoder(latent + strength * torch.randn_like(latent).sign())
            errors[name] = float((moved - detector.decoder(latent)).square().mean())
    assert errors["player"] < errors["plain"]


def test_the_score_is_the_error_of_the_reconstruction(images):
    detector = reached()
    with torch.no_grad():
        error = detector.error(images, True)
        expected = detector.blur(error).mean((1, 2, 3))
        torch.testing.assert_close(detector(images).image, expected)
        latent = detector.encoder(images)
        rebuilt = detector.decoder(latent + detector.perturbation(images, latent))
    torch.testing.assert_close(error, (images - rebuilt).square().mean(1, keepdim=True))


def test_the_path_at_scoring_is_a_setting_of_the_same_weights(data, images, tmp_path):
    perturbed, clean = trained(tmp_path, data), made(scoring="clean")
    clean.load_state_dict(perturbed.state_dict())
    with torch.no_grad():
        assert not torch.allclose(perturbed(images).image, clean(images).image)
        torch.testing.assert_close(clean(images).map, clean.blur(perturbed.error(images, False)))


def test_without_the_distorter_it_is_a_plain_autoencoder(data, images):
    detector = made(distorter=False)
    (phase,) = detector.phases(data)
    assert phase.rivals == ()
    assert not any("distorter" in key for key in detector.state_dict())
    rebuilt = detector.decoder(detector.encoder(images))
    torch.testing.assert_close(phase.loss(images), (images - rebuilt).square().mean())
    torch.testing.assert_close(detector.error(images, True), detector.error(images, False))


def test_the_ratio_tells_whether_the_distorter_lives(data, tmp_path):
    detector = trained(tmp_path / "alive", data)
    with torch.no_grad():
        errors = [float(detector.error(data.images, perturbed).mean()) for perturbed in (True, False)]
    assert float(detector.ratio) == pytest.approx(errors[0] / errors[1], rel=1e-3)
    dead = made(bound=0.0)
    for update in [list(dead.phases(data))[1]]:
        update.update(data.images)
        update.finish()
    assert float(dead.ratio) == pytest.approx(1)


def test_gain_and_offset_of_the_reconstruction_are_fitted_where_asked(images, monkeypatch):
    """In the error that positions are measured by, too: there is one."""
    errors = []
    for brightness in (False, True):
        detector = made(brightness=brightness)
        monkeypatch.setattr(detector.decoder, "forward", lambda _: images)
        errors.append(float(detector.error(1.2 * images + 0.05, True).mean()))
    assert errors[1] < 0.02 * errors[0]


def test_the_restraint_does_not_grow_with_the_latent(images, monkeypatch):
    """An autoencoder whose latent grows would else still the distorter: the restraint would outweigh the error."""
    losses = []
    for factor in (1.0, 100.0):
        detector = reached(restraint=1.0, bound=0.2)
        latent = detector.encoder(images).detach()
        monkeypatch.setattr(detector.encoder, "forward", lambda _, f=factor, z=latent: f * z)
        monkeypatch.setattr(detector.decoder, "forward", lambda _: images)  # no error: what is left is the restraint
        losses.append(float(detector.distorter_loss(images)))
    assert 0 < losses[0] <= 0.2**2
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_the_distorter_may_take_several_steps_to_one(data):
    game, _ = made(ascents=3).phases(data)
    assert [player.steps for player in game.players] == [1, 3]


def test_the_ratio_is_told_behind_every_epoch(data, tmp_path):
    """While it trains: a distorter that does nothing is seen in the log, not in the finished model alone."""
    loop = Loop(made(epochs=2), lambda _: 0.5, Checkpoint(tmp_path, "x"), 0, 1e9, Fabric(accelerator="cpu", devices=1))
    loop.run(data)
    assert all(record["perturbed over clean error"] > 0 for record in loop.history if record["phase"] == "game")


def test_networks_may_be_normalised_within_each_image(images):
    """What one image is rebuilt to then depends on no other, in training as in scoring."""
    detector = reached(norm="group").train()
    together = detector.decoder(detector.encoder(images))
    torch.testing.assert_close(together[:1], detector.decoder(detector.encoder(images[:1])), rtol=1e-4, atol=1e-5)
