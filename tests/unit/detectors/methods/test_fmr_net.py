"""What must be present for a detector to be FMR-Net; each point fails without it."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from components.detectors.catalogue import settings_for
from components.detectors.contract import OnePass, Optimise
from components.detectors.methods.fmr_net import FMRNet, Rearrangement, contrast, imbalance
from components.detectors.parts.memory import as_queries
from components.detectors.parts.similarity import gradient_difference, structural_difference
from components.training.loop import learning
from tests.given import Named, passed, phase, stripes

TINY = settings_for("fmr_net", "tiny")


def made(**changes) -> FMRNet:
    torch.manual_seed(0)
    return FMRNet(dataclasses.replace(TINY, **changes)).eval()


@pytest.fixture
def detector():
    return made()


@pytest.fixture
def images():
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def defects(images):
    """Defective images, the clean ones and the masks, as phase 2 draws them."""
    masks = torch.zeros(2, 1, 64, 64)
    masks[:, :, :16, :16] = 1
    return torch.where(masks > 0, 1.0, images), images, masks


# 1. A memory, learned by contrast, whose answers take the place of the latents


def test_the_contrast_draws_an_embedding_to_one_slot_and_off_the_others():
    cosine = torch.tensor([[0.3, 0.2, 0.1]], requires_grad=True)
    contrast(cosine, 0.1).sum().backward()
    assert cosine.grad[0, 0] < 0
    assert (cosine.grad[0, 1:] > 0).all()


def test_phase_1_learns_by_the_contrast(images):
    """With the other parts of the loss equal, a weight on the contrast brings latents and slots closer."""

    def nearness(weight: float) -> float:
        detector = made(contrast=weight)
        optimiser = torch.optim.Adam([detector.memory.slots], lr=1e-2)
        for _ in range(20):
            optimiser.zero_grad()
            detector.background_loss(images).backward()
            optimiser.step()
        cosine = detector.memory.cosine(as_queries(detector.embed(detector.features(images)[-1])))
        return float(cosine.max(2).values.mean().detach())

    assert nearness(10.0) > nearness(0.0) + 0.02


@pytest.mark.parametrize(("preset", "draws"), [("paper", True), ("cpu", False)])
def test_phase_1_of_the_cpu_preset_alone_has_no_contrast(images, preset, draws, monkeypatch):
    """Its other three parts stay, and so does the contrast of phase 2."""
    detector = made(contrast=settings_for("fmr_net", preset).contrast)
    with torch.no_grad():
        before = detector.background_loss(images)
        monkeypatch.setattr("components.detectors.methods.fmr_net.contrast", lambda cosine, _: 100 + cosine[:, 0])
        assert (not torch.equal(before, detector.background_loss(images))) == draws


def test_the_loss_of_phase_1_has_four_parts(images):
    detector = made(contrast=2.0, balance=3.0)
    with torch.no_grad():
        features = detector.features(images)
        embedded = detector.embed(features[-1])
        rebuilt = detector.rebuilt(features, embedded)
        cosine = detector.memory.cosine(as_queries(embedded))[0]
        parts = [
            F.mse_loss(rebuilt, images),
            structural_difference(rebuilt, images).mean(),
            contrast(cosine, TINY.temperature).mean(),
            imbalance(cosine, TINY.temperature),
        ]
        assert min(parts) > 1e-3
        expected = parts[0] + parts[1] + 2 * parts[2] + 3 * parts[3]
        torch.testing.assert_close(detector.background_loss(images), expected)


def test_a_slot_that_serves_everything_costs():
    even, one = torch.eye(4), torch.tensor([[1.0, 0, 0, 0]]).expand(4, 4)
    assert float(imbalance(even, 0.1)) == pytest.approx(0, abs=1e-3)
    assert float(imbalance(one, 0.1)) > 1


def test_latents_are_replaced_by_their_nearest_slots(detector, images):
    embedded = detector.embed(detector.features(images)[-1])
    replaced = as_queries(detector.substituted(embedded))[0]
    cosine = F.normalize(as_queries(embedded)[0]) @ F.normalize(detector.memory.slots[0]).T
    best = cosine.topk(TINY.nearest)
    weights = (best.values / TINY.temperature).softmax(1)
    expected = (weights[:, :, None] * detector.memory.slots[0][best.indices]).sum(1)
    torch.testing.assert_close(replaced, expected)


def test_of_fewer_slots_than_neighbours_all_answer(images):
    few = made(slots=2)
    weights = few.memory(as_queries(few.embed(few.features(images)[-1])))[1]
    assert few.settings.nearest == 3
    assert weights.shape[2] == 2
    assert (weights > 0).all()


def test_the_decoder_sees_nothing_of_a_latent_but_the_memory_s_answer(detector, images):
    features = detector.features(images)
    embedded = detector.embed(features[-1])
    longer = detector.rebuilt(features, 3 * embedded)  # the same direction: the same answer
    features[-1] = torch.full_like(features[-1], torch.nan)
    torch.testing.assert_close(longer, detector.rebuilt(features, embedded))


# 2. Skip connections rearranged from local textons


def rearrangement(**changes) -> Rearrangement:
    torch.manual_seed(0)
    return Rearrangement(4, 6, dataclasses.replace(TINY, **changes)).eval()


def test_what_leaves_a_skip_is_made_of_textons_alone():
    part = rearrangement(texton=2, step=2, temperature=1e-4)  # so cold that one texton answers
    found = part(torch.rand(1, 4, 8, 8), torch.rand(1, 6, 4, 4))
    blocks = F.unfold(found, 2, stride=2)[0].T
    assert torch.cdist(blocks, part.textons.slots[0]).min(1).values.max() < 1e-3


def test_textons_are_local():
    part = rearrangement()
    skip, restored = torch.rand(1, 4, 8, 8), torch.rand(1, 6, 4, 4)
    other = skip.clone()
    other[:, :, 0, 0] += 5
    moved = (part(skip, restored) - part(other, restored)).abs().amax(1)[0] > 1e-6
    assert moved[0, 0]
    assert not moved[5:].any()
    assert not moved[:, 5:].any()


def test_overlapping_textons_are_averaged():
    part = rearrangement()
    with torch.no_grad():
        part.textons.slots.fill_(0.7)
    found = part(torch.rand(1, 4, 8, 8), torch.rand(1, 6, 4, 4))
    torch.testing.assert_close(found, torch.full_like(found, 0.7))


def test_restored_latents_have_a_say_in_which_textons_are_read():
    part, skip = rearrangement(), torch.rand(1, 4, 8, 8)
    one, two = (part(skip, torch.full((1, 6, 4, 4), value)) for value in (0.0, 3.0))
    assert (one - two).abs().max() > 1e-3


def test_both_skips_reach_the_decoder_rearranged_only(detector, images):
    seen = {}
    detector.decoder.register_forward_pre_hook(lambda _, given: seen.update(laterals=given[1]))
    out = []
    for part in detector.rearrange:
        part.register_forward_hook(lambda _, __, found: out.append(found))
    detector.measured(images)
    assert [lateral is found for lateral, found in zip(seen["laterals"], out, strict=False)] == [True, True]
    assert seen["laterals"][2:] == [None, None]


# 3. Two phases


def test_normals_first_and_defects_second(detector):
    data = Named()
    phases = list(detector.phases(data))
    assert [type(s) for s in phases] == [Optimise, OnePass, Optimise, OnePass]
    background, restoration = phases[0], phases[2]
    assert background.table == ["pixels 64"]
    assert not background.select
    assert {id(p) for p in detector.memory.parameters()} <= {id(p) for p in background.parameters}
    assert [list(t) for t in restoration.table.tables] == [["pixels 64"], ["clean 64"], ["masks 64"]]
    assert data.asked == [(TINY.strategies, 64)]


def test_phase_2_leaves_encoder_and_memory_as_they_are(defects):
    detector = made(apart=1.0)
    frozen = {k: v.clone() for k, v in detector.state_dict().items() if k.startswith(("encoder", "memory"))}
    decoder = detector.leave.weight.clone()
    phase = list(detector.phases(Named()))[2]
    optimiser = torch.optim.Adam(phase.parameters, lr=1e-2)
    with learning(detector, phase):
        for _ in range(2):
            optimiser.zero_grad()
            detector.restoration_loss(defects).backward()
            optimiser.step()
    for key, value in frozen.items():  # running statistics too
        torch.testing.assert_close(detector.state_dict()[key], value, rtol=0, atol=0)
    assert not torch.equal(detector.leave.weight, decoder)


def test_the_embedding_is_frozen_too_without_repulsion():
    def trains_embedding(**changes) -> bool:
        detector = made(**changes)
        return any(p is detector.embed.weight for p in detector.restoring())

    assert trains_embedding()
    assert not trains_embedding(apart=0.0)


def test_phase_2_rebuilds_the_clean_image_and_counts_more_inside(detector, defects, monkeypatch):
    defective, clean, masks = defects
    monkeypatch.setattr(detector, "repulsion", lambda *_: torch.zeros(()))
    losses = {}
    for name, answer in {
        "clean": clean,
        "defective": defective,
        "wrong": torch.where(masks > 0, 0.0, clean),
    }.items():
        monkeypatch.setattr(detector, "rebuilt", lambda *_, answer=answer: answer)
        losses[name] = float(detector.restoration_loss(defects))
    assert losses["clean"] == pytest.approx(0, abs=1e-5)
    assert min(losses["defective"], losses["wrong"]) > 0.01
    monkeypatch.setattr(detector, "rebuilt", lambda *_: defective)
    lighter = made(inside=1.0)
    monkeypatch.setattr(lighter, "repulsion", lambda *_: torch.zeros(()))
    monkeypatch.setattr(lighter, "rebuilt", lambda *_: defective)
    assert losses["defective"] > 1.5 * float(lighter.restoration_loss(defects))


def test_the_loss_of_phase_2_has_three_differences(defects, monkeypatch):
    detector, (_, clean, _), answer = made(inside=1.0), defects, torch.rand(2, 3, 64, 64)
    monkeypatch.setattr(detector, "repulsion", lambda *_: torch.zeros(()))
    monkeypatch.setattr(detector, "rebuilt", lambda *_: answer)
    parts = F.mse_loss(answer, clean), structural_difference(clean, answer), gradient_difference(clean, answer)
    torch.testing.assert_close(detector.restoration_loss(defects), sum(part.mean() for part in parts))


def test_defective_cells_are_pushed_off_the_memory(detector):
    slots = F.normalize(detector.memory.slots[0], dim=1)
    embedded = slots[0].view(1, -1, 1, 1).repeat(1, 1, 4, 4).requires_grad_()
    masks = torch.zeros(1, 1, 64, 64)
    assert float(detector.repulsion(embedded, masks)) < float(detector.repulsion(embedded, masks + 1))
    masks[:, :, 17, 17] = 1  # one pixel makes its cell a defective one
    cosine = detector.memory.cosine(as_queries(embedded))[0]
    expected = 1 - TINY.margin + float(contrast(cosine, TINY.temperature)[15])
    assert float(detector.repulsion(embedded, masks)) == pytest.approx(expected, rel=1e-3)


# 4. Three differences in one map


@pytest.mark.parametrize("cue", range(3))
def test_each_of_the_three_differences_counts(detector, images, cue, monkeypatch):
    plain = detector.score(images, (64, 64)).image
    measured = detector.measured(images)
    measured[:, cue] += 1
    monkeypatch.setattr(detector, "measured", lambda _: measured)
    assert (detector.score(images, (64, 64)).image > plain + 0.2).all()


def test_the_three_see_different_things(detector, images):
    brighter = detector.differences(images * 0.5, images * 0.5 + 0.2).mean((0, 2, 3))
    inverted = detector.differences(images, 1 - images).mean((0, 2, 3))
    assert float(brighter[0]) < 1e-3  # the gradients are the same
    assert float(brighter[2]) == pytest.approx(0.2, rel=1e-3)
    assert float(inverted[0]) < 1e-3
    assert float(inverted[1]) > 1  # structure of the opposite sign


def test_differences_are_standardised_on_normals_before_they_are_added(detector, images):
    passed(detector, "scale", images)
    measured = detector.measured(images)
    scaled = detector.standardise(measured)
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-3, rtol=0)
    phase(detector, "standardise").update(images)  # the second time, behind phase 2, starts anew
    assert float(detector.standardise.sums[0, 0]) == 2 * 64 * 64


def test_what_is_closer_than_normal_makes_up_for_nothing(detector, images, monkeypatch):
    low = torch.zeros(1, 3, 64, 64)
    low[:, 0], low[:, 1] = 3.0, -9.0
    monkeypatch.setattr(detector, "measured", lambda _: low)
    assert float(detector.score(images, (64, 64)).image) == pytest.approx(1.0, rel=1e-4)


# 5. An answer without the decoder


def test_the_edge_answers_without_decoder_and_rearrangement(detector, images, monkeypatch):
    def refused(*_):
        raise AssertionError

    for part in (detector.decoder, detector.rearrange[0], detector.rearrange[1], detector.enter, detector.leave):
        monkeypatch.setattr(part, "forward", refused)
    scores = detector.edge(images, (50, 70))
    assert scores.image.shape == (2,)
    assert scores.map.shape == (2, 1, 50, 70)
    with pytest.raises(AssertionError):
        detector.score(images, (64, 64))


def test_the_edge_score_is_the_distance_from_the_memory(detector, images, monkeypatch):
    known = F.normalize(detector.memory.slots[0, :2], dim=1)
    embedded = known[0].view(1, -1, 1, 1).repeat(1, 1, 4, 4)
    monkeypatch.setattr(detector.embed, "forward", lambda _: embedded)
    assert float(detector.edge(images, (64, 64)).image) == pytest.approx(0, abs=1e-5)
    embedded[:, :, 3, 3] = -known[0]
    scores = detector.edge(images, (64, 64))
    far = 1 - float((F.normalize(detector.memory.slots[0], dim=1) @ -known[0]).max())
    assert float(scores.image) == pytest.approx(far / 4, rel=1e-4)  # the mean over what a corner's 3 x 3 cells leave
    assert scores.map[0, 0, 60, 60] > scores.map[0, 0, 4, 4]


def test_gain_and_offset_of_the_background_are_fitted_where_asked(monkeypatch):
    images, found = stripes(2), []
    for brightness in (False, True):
        detector = made(brightness=brightness)
        monkeypatch.setattr(detector, "rebuilt", lambda *_: images)
        found.append(detector.measured(1.2 * images + 0.05).mean((0, 2, 3)))
    assert (found[1] < 0.2 * found[0]).all()  # of each of the three measures
