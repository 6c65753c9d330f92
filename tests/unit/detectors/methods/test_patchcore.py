"""What must be present for a detector to be PatchCore with a streaming coreset."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from components.backbones.extractor import BackboneSettings
from components.core.artefacts import read_json, write_json
from components.detectors.methods.patchcore import PatchCore, PatchCoreSettings
from components.detectors.parts.blocks import distance
from components.training.model import load_model, save_model
from tests.given import passed

SMALL = BackboneSettings(taps=(2, 3), size=64)


@pytest.fixture
def detector():
    return PatchCore(PatchCoreSettings(SMALL, bank_size=64, blur=1.0), pretrained=False)


@pytest.fixture
def rows(detector):
    torch.manual_seed(0)
    dense = torch.randn(5000, detector.coreset.bank.shape[1]) * 0.1
    rare = torch.randn(30, detector.coreset.bank.shape[1]) * 3
    return torch.cat([dense[:2500], rare, dense[2500:]])


def reach(rows, bank):
    return float(torch.cdist(rows, bank).min(1).values.max())


def test_bank_never_outgrows_its_cap(detector, rows):
    for chunk in rows.split(100):
        detector.coreset.offer(chunk)
        assert 0 < int(detector.coreset.count) <= 64
    assert (detector.coreset.bank[int(detector.coreset.count) :] == 1e4).all()


def test_coreset_covers_better_than_a_random_bank(detector, rows):
    detector.coreset.offer(rows)
    bank = detector.coreset.bank[: int(detector.coreset.count)]
    random = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(1))[: len(bank)]]
    assert reach(rows, bank) < 0.5 * reach(rows, random)


def test_kept_patches_are_apart_and_the_rest_is_near(detector, rows):
    detector.coreset.offer(rows)
    bank, radius = detector.coreset.bank[: int(detector.coreset.count)], float(detector.coreset.radius)
    between = torch.cdist(bank, bank) + torch.eye(len(bank)) * 1e9
    assert float(between.min()) >= radius * 0.999
    # A patch that left the bank when the radius grew is within the sum of all later radii of a kept one.
    growth = detector.settings.growth
    assert reach(rows, bank) <= radius / (1 - 1 / growth)


def test_order_of_batches_is_the_only_state(detector, rows):
    detector.coreset.offer(rows)
    other = PatchCore(detector.settings, pretrained=False)
    for chunk in rows.split(1024):  # the same chunks in several calls
        other.coreset.offer(chunk)
    torch.testing.assert_close(detector.coreset.bank, other.coreset.bank, rtol=0, atol=0)


def test_patches_are_local_averages_on_the_finest_grid(detector):
    features = [
        torch.zeros(1, c, g, g) for c, g in zip(detector.backbone.channels, detector.backbone.grids, strict=True)
    ]
    features[0][0, 0, 4, 4] = 9.0
    embedded = detector.embed(features)
    assert embedded.shape == (1, sum(detector.backbone.channels), 8, 8)
    torch.testing.assert_close(embedded[0, 0, 3:6, 3:6], torch.ones(3, 3))
    assert float(embedded[0, 0].sum()) == pytest.approx(9.0)


def test_image_score_is_the_reweighted_distance_of_the_farthest_patch(detector, rows):
    detector.coreset.offer(rows)
    passed(detector, "coreset")
    features = [
        torch.randn(2, c, g, g) for c, g in zip(detector.backbone.channels, detector.backbone.grids, strict=True)
    ]
    got = detector.score(features, (64, 64)).image
    bank = detector.coreset.bank[: int(detector.coreset.count)].double()
    queries = detector.embed(features).permute(0, 2, 3, 1).flatten(1, 2).double()
    for image, patches in zip(got, queries, strict=True):
        distances = torch.cdist(patches, bank)
        at = int(distances.min(1).values.argmax())
        worst, nearest = distances[at].min(0)
        around = torch.cdist(bank[nearest][None], bank)[0].topk(9, largest=False).indices
        weights = np.exp(np.r_[float(worst), distances[at][around].numpy()] - float(worst))
        # Roth et al., eq. 6 and 7: (1 - exp(s*) / sum of exp over the neighbours of the nearest patch) s*
        expected = (1 - weights[0] / max(weights[1:].sum(), 1.0)) * float(worst)
        assert float(image) == pytest.approx(expected, rel=1e-3)


def test_the_map_is_the_distance_to_the_nearest_of_the_bank(detector, rows):
    detector.coreset.offer(rows)
    features = [
        torch.randn(2, c, g, g) for c, g in zip(detector.backbone.channels, detector.backbone.grids, strict=True)
    ]
    queries = detector.embed(features).permute(0, 2, 3, 1).flatten(1, 2)
    nearest = torch.cdist(queries, detector.coreset.known()).min(2).values.view(2, 1, 8, 8)
    expected = detector.blur(F.interpolate(nearest, (64, 64), mode="bilinear", align_corners=False))
    torch.testing.assert_close(detector.score(features, (64, 64)).map, expected, rtol=1e-3, atol=1e-3)


def test_map_holds_the_distance_of_every_patch(detector):
    detector.coreset.offer(torch.zeros(1, detector.coreset.bank.shape[1]))
    passed(detector, "coreset")
    features = [
        torch.zeros(1, c, g, g) for c, g in zip(detector.backbone.channels, detector.backbone.grids, strict=True)
    ]
    features[0][0, :, 4, 5] = 5.0
    heat = detector.score(features, (64, 64)).map[0, 0]
    y, x = divmod(int(heat.argmax()), 64)
    assert abs(y - 36) <= 5
    assert abs(x - 44) <= 5
    assert float(heat[:16, :16].max()) < 1e-3


def test_the_blur_is_of_the_working_size_whatever_size_the_image_has(detector):
    detector.coreset.offer(torch.zeros(1, detector.coreset.bank.shape[1]))
    features = [
        torch.zeros(1, c, g, g) for c, g in zip(detector.backbone.channels, detector.backbone.grids, strict=True)
    ]
    features[0][0, :, 4, 4] = 5.0
    own = detector.score(features, (64, 64)).map
    large = detector.score(features, (256, 256)).map
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(large, 4), own, rtol=0.05, atol=0.02 * float(own.max()))


@pytest.fixture
def listed(rows):
    """Of a bank of 64 rows one of four lists is visited."""
    made = PatchCore(PatchCoreSettings(SMALL, bank_size=64, blur=1.0, lists=4, probes=1), pretrained=False)
    made.coreset.offer(rows)
    passed(made, "coreset")
    return made


def test_what_lists_miss_among_the_farthest_patches_is_found_in_the_whole_bank(listed, monkeypatch):
    def missing(queries, bank):
        found = distance(queries, bank)
        found[7::64] += 100  # one patch of each picture, whose nearest row is in a list that is not visited
        return found

    features = [torch.randn(2, c, g, g) for c, g in zip(listed.backbone.channels, listed.backbone.grids, strict=True)]
    monkeypatch.setattr(listed.lists, "distance", missing)
    found, listed.lists = listed.score(features, (64, 64)), None
    torch.testing.assert_close(found, listed.score(features, (64, 64)))


def test_a_model_from_before_the_lists_opens(detector, rows, tmp_path):
    detector.coreset.offer(rows)
    save_model(detector, tmp_path)
    saved = read_json(tmp_path / "settings.json")
    for name in ("lists", "probes", "reach"):
        del saved["settings"][name]
    write_json(tmp_path / "settings.json", saved)
    assert torch.equal(load_model(tmp_path).coreset.bank, detector.coreset.bank)


def test_a_model_from_before_the_reach_opens_and_visits_all_its_probes(listed, tmp_path):
    save_model(listed, tmp_path)
    saved = read_json(tmp_path / "settings.json")
    del saved["settings"]["reach"]
    write_json(tmp_path / "settings.json", saved)
    opened, queries = load_model(tmp_path), listed.coreset.bank + 0.1
    found, known = (one.lists.distance(queries, one.coreset.known()) for one in (opened, listed))
    assert torch.equal(found, known)


def test_what_passes_cost_is_measured_by_lists(listed):
    untrained = PatchCore(listed.settings, pretrained=False)
    untrained.grow()
    untrained.lists.read()
    assert int(untrained.coreset.count) == 64
    assert 2 <= len(untrained.lists.ends) <= 4
