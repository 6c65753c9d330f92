"""What must be present for a detector to be PMB-AE; each point fails without it."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from components.core.errors import SettingsError
from components.detectors.catalogue import settings_for
from components.detectors.contract import OnePass, Optimise
from components.detectors.methods.pmb_ae import PMBAE, ErrorEstimate, PartitionMemory
from components.detectors.parts.memory import entropy
from components.detectors.parts.similarity import structural_difference
from tests.given import Named, passed

TINY = settings_for("pmb_ae", "tiny")


def made(**changes) -> PMBAE:
    torch.manual_seed(0)
    return PMBAE(dataclasses.replace(TINY, **changes)).eval()


def bank(query: str = "channel", **changes) -> PartitionMemory:
    torch.manual_seed(0)
    return PartitionMemory(6, 16, dataclasses.replace(TINY, query=query, **changes))


@pytest.fixture
def maps():
    torch.manual_seed(1)
    return torch.randn(2, 6, 16, 16)


@pytest.fixture
def images():
    torch.manual_seed(2)
    return torch.rand(3, 3, 64, 64)


@pytest.mark.parametrize("query", ["channel", "pixel"])
def test_a_partition_is_rebuilt_from_its_own_memory_alone(query, maps):
    memory = bank(query)
    other = maps.clone()
    other[:, :, 4:8, 8:12] = torch.randn(2, 6, 4, 4)  # partition (1, 2) of 4 x 4
    changed = (memory(maps)[0] != memory(other)[0]).any(0).any(0)
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:8, 8:12] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("query", ["channel", "pixel"])
def test_every_partition_has_slots_of_its_own(query, maps):
    memory = bank(query, blend=False)
    before = memory(maps)[0]
    with torch.no_grad():
        memory.memory.slots[4 * 2 + 1] += 1  # partition (2, 1)
    changed = (memory(maps)[0] != before).any(0).any(0)
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[8:12, 4:8] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("query", ["channel", "pixel"])
def test_what_is_read_is_a_convex_combination_of_slots(query, maps):
    memory = bank(query, blend=False)
    read, weights = memory(maps)
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights.sum(2), torch.ones(weights.shape[:2]))
    torch.testing.assert_close(memory.queries(read), weights @ memory.memory.slots)
    assert float(memory(100 * maps)[0].abs().max()) <= float(memory.memory.slots.abs().max())


@pytest.mark.parametrize("query", ["channel", "pixel"])
def test_queries_are_put_back_where_they_were(query, maps):
    memory = bank(query)
    torch.testing.assert_close(memory.joined(memory.queries(maps), maps), maps, rtol=0, atol=0)


def test_a_query_carries_the_layout_of_its_partition(maps):
    queries = bank().queries(maps)
    assert queries.shape == (16, 2 * 6, 4 * 4)
    torch.testing.assert_close(queries[4 * 1 + 2, 6 + 3], maps[1, 3, 4:8, 8:12].flatten())


def test_the_other_reading_of_the_query_is_one_position(maps):
    queries = bank("pixel").queries(maps)
    assert queries.shape == (16, 2 * 16, 6)
    torch.testing.assert_close(queries[4 * 1 + 2, 16 + 5], maps[1, :, 5, 9])


def test_the_reconstruction_loss_trains_every_memory(images):
    detector = made(size=64, widths=(8, 8, 8, 8), laterals=("memory", "skip", "none", "memory"), entropy=0.0)
    detector.loss(images).backward()
    assert set(detector.memories) == {"0", "3"}
    for memory in detector.memories.values():
        assert all(float(part.abs().max()) > 0 for part in memory.memory.slots.grad)


def test_the_entropy_of_the_addressing_is_part_of_the_loss(images):
    with torch.no_grad():
        plain, more = made(entropy=0.0).loss(images), made(entropy=1.0).loss(images)
    assert float(more) > float(plain) + 0.1


def test_memory_and_skips_take_turns():
    detector = made()
    for lateral in ("skip", "memory"):
        assert lateral in detector.settings.laterals
    for wrong in (("none", "none", "memory"), ("memory", "none", "memory"), ("skip", "skip", "memory")):
        with pytest.raises(SettingsError, match="turns"):
            made(laterals=wrong)
    with pytest.raises(SettingsError, match="last"):
        made(laterals=("none", "memory", "skip"))


def test_what_the_skip_sees_and_what_the_memory_reads_both_reach_the_decoder(images):
    detector = made()
    rebuilt = detector.rebuild(images)[0]
    with torch.no_grad():
        detector.memories["2"].memory.slots += 1
    assert not torch.allclose(detector.rebuild(images)[0], rebuilt)
    seen = {}
    detector.decoder.register_forward_pre_hook(lambda _, given: seen.update(laterals=given[1]))
    detector.rebuild(images)
    torch.testing.assert_close(seen["laterals"][0], detector.encoder(images)[1])  # as it is: a plain skip
    assert seen["laterals"][1] is None


def test_the_decoder_gets_what_a_memory_reads_and_nothing_else_of_its_level(images):
    detector = made(widths=(8, 8, 8, 8), laterals=("memory", "skip", "none", "memory"))
    entered = []
    detector.decoder.register_forward_pre_hook(lambda _, given: entered.extend(given))
    detector.rebuild(images)
    deepest, (third, second, first) = entered
    levels = detector.encoder(images)
    torch.testing.assert_close(deepest, detector.memories["3"](levels[3])[0])
    torch.testing.assert_close(first, detector.memories["0"](levels[0])[0])
    torch.testing.assert_close(second, levels[1])
    assert third is None


def test_the_loss_has_three_parts(images):
    detector = made(structure=2.0, entropy=0.5)
    with torch.no_grad():
        rebuilt, weights = detector.rebuild(images)
        parts = F.mse_loss(rebuilt, images), structural_difference(rebuilt, images).mean(), entropy(weights[0])
        assert min(parts) > 0.01
        torch.testing.assert_close(detector.loss(images), parts[0] + 2 * parts[1] + 0.5 * parts[2])


def test_partitions_must_hold_more_than_one_position():
    with pytest.raises(SettingsError, match="parts"):
        made(parts=16)


def test_the_level_is_read_off_the_images_own_histogram():
    estimate = ErrorEstimate(100, share=0.9, ceiling=1.5)
    one = torch.arange(100.0).view(1, 1, 10, 10)
    torch.testing.assert_close(estimate.level(torch.cat([one, 3 * one])).flatten(), torch.tensor([90.0, 270.0]))


def test_what_is_below_the_level_becomes_zero_and_the_rest_loses_it():
    estimate = ErrorEstimate(100, share=0.9, ceiling=1.5)
    left = estimate(torch.arange(100.0).view(1, 1, 10, 10)).flatten()
    assert not left[:91].any()
    torch.testing.assert_close(left[91:], torch.arange(1.0, 10.0))


def test_a_large_defect_does_not_hide_itself():
    estimate = ErrorEstimate(100, share=0.9, ceiling=1.5)
    estimate.add(torch.rand(8, 1, 10, 10, generator=torch.Generator().manual_seed(0)))
    estimate.finish()
    defect = torch.zeros(1, 1, 10, 10)
    defect[:, :, :5] = 4.0  # half of the image: its own level would be 4
    assert float(estimate.room) == pytest.approx(1.5 * 0.9 - 0.5, abs=0.05)
    torch.testing.assert_close(estimate(defect).max(), 4.0 - estimate.room)


def test_a_normal_under_other_light_is_cleaned_as_before():
    """What lifts the difference everywhere is nuisance; a cap fixed on the normals would leave all of it."""
    estimate, draw = ErrorEstimate(400, share=0.9, ceiling=1.5), torch.Generator().manual_seed(0)
    normals = 0.04 * torch.rand(8, 1, 20, 20, generator=draw)
    estimate.add(normals)
    estimate.finish()
    torch.testing.assert_close(estimate(normals + 0.1), estimate(normals), rtol=0, atol=1e-6)
    defect = normals[:1] + 0.1
    defect[:, :, :8] += 0.3  # two fifths of a brighter image: its own level would hide it
    left = estimate(defect)
    assert float(left[:, :, :8].mean()) > 0.2
    assert float(left[:, :, 8:].mean()) < 0.01


def test_a_brighter_normal_scores_as_the_normal(images, monkeypatch):
    detector = made(standardise=False)
    normals = 0.3 * images
    monkeypatch.setattr(detector, "rebuild", lambda given: (0.3 * images[: len(given)] + 0.02 * edges, []))
    edges = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    passed(detector, "error level", normals)
    plain, brighter = detector(normals), detector(normals + 0.2)
    assert float(plain.image.max()) > 0
    assert float(brighter.image.max()) < 3 * float(plain.image.max())
    assert float(brighter.map.mean()) < 0.01  # of 0.19 that the difference is


def test_the_map_and_the_image_score_come_from_the_cleaned_difference(images, monkeypatch):
    detector = made(standardise=False)
    noise = torch.full((3, 1, 64, 64), 0.1)
    noise[1] = 0.4  # an image that is harder to rebuild, everywhere
    monkeypatch.setattr(detector, "difference", lambda _: noise)
    scores = detector.score(images, (64, 64))
    assert not scores.map.any()
    assert not scores.image.any()
    noise[2, :, 20:30, 20:30] += 1
    assert detector.score(images, (64, 64)).image.argmax() == 2


def test_positions_are_standardised_by_the_normals(images):
    detector = made(standardise=True)
    passed(detector, "error level", images)
    detector.positions.add(detector.errors(images))
    detector.positions.finish()
    maps = detector.score(images, (64, 64)).map
    torch.testing.assert_close(maps.mean(0), torch.zeros(1, 64, 64), rtol=0, atol=1e-3)


def test_only_normal_images_are_learned_from():
    phases = list(made(standardise=True).phases(Named()))
    assert [s.name for s in phases] == ["reconstruction", "error level", "standardised positions"]
    assert [type(s) for s in phases] == [Optimise, OnePass, OnePass]
    assert all(s.table == ["pixels 64"] for s in phases)
    assert [s.name for s in made(standardise=False).phases(Named())] == ["reconstruction", "error level"]


def test_turns_are_left_out_for_comparison_only():
    laterals = ("none", "memory", "memory")
    with pytest.raises(SettingsError, match="take turns"):
        made(laterals=laterals)
    assert sorted(made(laterals=laterals, alternate=False).memories) == ["1", "2"]


def test_gain_and_offset_of_the_reconstruction_are_fitted_where_asked(images, monkeypatch):
    """What the fit takes away is not there for the error level, whose cap a defect then meets as on a normal."""
    normals = 0.2 + 0.5 * images
    lit = 1.2 * normals + 0.05
    marked, left = lit.clone(), []
    marked[:, :, 16:40, 16:40] -= 0.3
    for brightness in (False, True):
        detector = made(standardise=False, brightness=brightness)
        monkeypatch.setattr(detector, "rebuild", lambda _: (normals + 0.01 * (images.flip(3) - 0.5), []))
        detector._add_level(normals)
        detector.estimate.finish()
        left.append(float(detector.difference(lit).mean()))
    assert left[1] < 0.2 * left[0]
    found = detector.estimate(detector.difference(marked))
    assert float(found[:, :, 18:38, 18:38].mean()) > 0.2
    assert float(found[:, :, :12].mean()) < 0.01
