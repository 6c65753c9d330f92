"""What must be present for a detector to be multi-scale feature imitation; each point fails without it."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from components.detectors.catalogue import settings_for
from components.detectors.contract import OnePass, Optimise
from components.detectors.methods.msfi import MSFI
from tests.given import passed

TINY = settings_for("msfi", "tiny")


def made(**changes) -> MSFI:
    torch.manual_seed(0)
    return MSFI(dataclasses.replace(TINY, **changes), pretrained=False).eval()


@pytest.fixture
def detector():
    return made()


@pytest.fixture
def inputs(detector):
    torch.manual_seed(1)
    with torch.inference_mode():
        drawn = detector.prepared(torch.rand(2, 3, 64, 64))
    return [[tap.clone() for tap in scale] for scale in drawn]


class Given:
    """Training data whose tables are their names."""

    def features(self, backbone):
        return [f"features {backbone.settings.size}"]

    def masks(self, side):
        return [f"masks {side}"]

    def anomalies(self, *_):
        return self


def test_both_pyramids_are_there(detector):
    assert len({scale for scale, _ in detector.places}) >= 2
    assert len({tap for _, tap in detector.places}) >= 2
    assert detector.sizes == (64, 32)


def test_grids_that_say_nothing_get_no_block():
    assert (2, 3) not in MSFI(settings_for("msfi", "cpu"), pretrained=False).places  # 4 x 4 at a quarter of 256


def test_no_gradient_runs_from_block_to_block(detector, inputs):
    distances = detector.distances(inputs)
    for i, distance in distances.items():
        detector.zero_grad()
        distance.mean().backward(retain_graph=True)
        reached = {int(n.split(".")[1]) for n, p in detector.named_parameters() if p.grad is not None and p.grad.any()}
        assert reached == {i}


def test_a_block_imitates_the_next_stage_from_the_one_before(detector, inputs):
    before = detector.distances(inputs)
    scale, tap = detector.places[0]
    inputs[scale][tap - 1] += 1
    after = detector.distances(inputs)
    changed = {i for i in before if not torch.allclose(before[i], after[i])}
    assert changed == {
        i for i, place in enumerate(detector.places) if place[0] == scale and tap - 1 in (place[1] - 1, place[1])
    }


def test_importance_is_one_number_per_block_learned_as_a_task_of_its_own(detector):
    phases = list(detector.phases(Given()))
    assert [s.name for s in phases] == ["imitation", "standardise", "importance", "cut"]
    assert [type(s) for s in phases] == [Optimise, OnePass, Optimise, OnePass]
    assert detector.importance.shape == (len(detector.places),)
    blocks = {id(p) for p in detector.blocks.parameters()}
    assert not blocks & {id(p) for p in phases[2].parameters}
    assert blocks == {id(p) for p in phases[0].parameters}


def preferred(search: str, forged, masks) -> int:
    """The block whose weight the search would raise most; what is not *forged* is a normal image."""
    detector = made(search=search, entropy=0.0)
    normals = (list(forged),) if search == "images" else ()
    detector.search_loss((forged, masks, *normals)).backward()
    return int(detector.importance.grad.argmin())


@pytest.mark.parametrize(("search", "parts"), [("images", 3), ("pixels", 2)])
def test_only_a_search_by_images_reads_normals(search, parts):
    importance = list(made(search=search).phases(Given()))[2]
    assert len(importance.table.tables) == parts


@pytest.mark.parametrize("search", ["images", "pixels"])
def test_the_search_moves_weight_to_the_block_that_finds_anomalies(search, inputs, monkeypatch):
    masks = torch.zeros(2, 1, 16, 16)
    masks[:, :, :8] = 1
    good, noise = 4 * masks, torch.rand(2, 1, 16, 16)
    monkeypatch.setattr(
        MSFI, "standardised", lambda _, x: {i: good * (x is inputs) if i == 2 else noise for i in range(3)}
    )
    assert preferred(search, inputs, masks) == 2


def test_the_search_by_images_prefers_the_coarse_block_that_ranks_images_over_the_fine_one_that_fits_masks(
    inputs, monkeypatch
):
    masks = torch.zeros(2, 1, 16, 16)
    masks[:, :, 4:6, 4:6] = 1
    fine, coarse, none = 3 * masks, torch.full_like(masks, 4.0), torch.zeros_like(masks)
    on_normals = [fine.roll(8, 3), none, none]  # the fine block answers on normals as much, elsewhere
    monkeypatch.setattr(
        MSFI, "standardised", lambda _, x: dict(enumerate([fine, coarse, none] if x is inputs else on_normals))
    )
    assert preferred("images", inputs, masks) == 1
    assert preferred("pixels", inputs, masks) == 0


def test_the_search_prefers_few_blocks(detector, inputs, monkeypatch):
    """With maps that say nothing, what is left of the loss makes a large weight larger."""
    monkeypatch.setattr(MSFI, "standardised", lambda *_: dict.fromkeys(range(3), torch.zeros(2, 1, 16, 16)))
    with torch.no_grad():
        detector.importance.copy_(torch.tensor([0.0, 1.0, 0.0]))
    detector.search_loss((inputs, torch.zeros(2, 1, 16, 16))).backward()
    assert (detector.importance.grad < 0).tolist() == [False, True, False]


def test_the_map_is_the_weighted_sum_of_the_blocks(detector, inputs):
    detector.weights.copy_(torch.tensor([0.2, 0.0, 0.8]))
    detector.keep()
    first, last = detector.standardised(inputs).values()
    up = [F.interpolate(m, (64, 64), mode="bilinear", align_corners=False) for m in (first, last)]
    scores = detector.score(inputs, (64, 64))
    torch.testing.assert_close(scores.map, detector.blur(0.2 * up[0] + 0.8 * up[1]))
    torch.testing.assert_close(scores.image, scores.map.amax((1, 2, 3)))


def test_small_weights_are_cut_and_what_is_cut_does_not_run(detector, inputs):
    with torch.no_grad():
        detector.importance.copy_(torch.tensor([3.0, -3.0, 2.5]))
    passed(detector, "cut")
    assert detector.kept == (0, 2)
    assert float(detector.weights.sum()) == pytest.approx(1)
    ran = []
    for i, block in enumerate(detector.blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    detector.score(inputs, (64, 64))
    assert ran == [0, 2]


def test_a_loaded_model_keeps_what_was_kept(detector, inputs, tmp_path):
    with torch.no_grad():
        detector.importance.copy_(torch.tensor([3.0, -3.0, 2.5]))
    passed(detector, "cut")
    save_file({k: v.contiguous() for k, v in detector.state_dict().items()}, tmp_path / "model")
    loaded = made()
    loaded.load_state_dict(load_file(tmp_path / "model"))
    assert loaded.kept == (0, 2)
    torch.testing.assert_close(loaded.score(inputs, (64, 64)).map, detector.score(inputs, (64, 64)).map)


def test_maps_are_standardised_before_they_are_weighed(detector, inputs):
    passed(detector, "standardise", inputs)
    for i, distance in detector.distances(inputs).items():
        assert float(detector.centre[i]) == pytest.approx(float(distance.mean()), rel=1e-4)
        assert float(detector.spread[i]) == pytest.approx(float(distance.std(correction=0)), rel=1e-3)
    assert all(float(m.min()) == 0 for m in detector.standardised(inputs).values())


def test_the_search_can_be_off():
    assert [s.name for s in made(search_epochs=0).phases(Given())] == ["imitation", "standardise"]
