"""What must be present for a detector to be PNI; each point fails without it."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from components.detectors.catalogue import settings_for
from components.detectors.methods.pni import PNI, Neighbourhood, Refine
from components.detectors.parts.coreset import farthest_first
from components.training.loop import learning
from tests.given import passed, phase

TINY = settings_for("pni", "tiny")


def made(**changes) -> PNI:
    torch.manual_seed(0)
    return PNI(dataclasses.replace(TINY, **changes), pretrained=False).eval()


def features(seed=1, count=2):
    torch.manual_seed(seed)
    return [torch.randn(count, 40, 8, 8), torch.randn(count, 112, 4, 4)]


@pytest.fixture
def detector():
    found = made(refine=False)
    passed(found, "coreset", features())
    passed(found, "positions", features())
    return found


@pytest.mark.parametrize(("released", "seen"), [(False, False), (True, True)])
def test_the_classifier_does_not_see_the_centre(released, seen):
    torch.manual_seed(0)
    classifier = Neighbourhood(8, dataclasses.replace(TINY, released_centre=released)).eval()
    x = torch.randn(1, 8, 8, 8, requires_grad=True)
    classifier(x)[0, :, 4, 4].square().sum().backward()
    reached = x.grad[0].abs().sum(0) > 0
    assert bool(reached[4, 4]) is seen
    rows, columns = reached.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (2, 6, 2, 6)  # the window of 5
    assert int(reached.sum()) == 24


def test_the_classifier_is_the_perceptron_over_flattened_windows():
    torch.manual_seed(0)
    classifier = Neighbourhood(8, TINY).eval()
    x = torch.randn(1, 8, 8, 8)
    windows = torch.nn.functional.unfold(x, 5, padding=2)  # (1, 8 * 25, 64)
    weight = (classifier.first.weight * classifier.hidden_centre).flatten(1)
    hidden = (weight @ windows[0] + classifier.first.bias[:, None]).view(1, -1, 8, 8)
    torch.testing.assert_close(classifier(x), classifier.rest(hidden), rtol=1e-4, atol=1e-5)


def test_the_histogram_counts_positions_and_those_around_them():
    detector = made(refine=False)
    passed(detector, "coreset", features())
    positions = phase(detector, "positions")
    positions.update([f[:1] for f in features()])
    raw = detector.plausible.clone()
    assert float(raw.sum()) == 64
    positions.finish()
    index = int(raw[:, 4, 4].argmax())
    assert (detector.plausible[index, 3:6, 3:6] > 0).all()
    torch.testing.assert_close(detector.plausible.sum(0), torch.ones(8, 8))


@pytest.mark.parametrize("limit", ["entries", "classes"])
def test_an_entry_counts_only_where_it_is_allowed(detector, limit):
    """Literal form of the score: nearest entry c with p(c) > 1 / (2 |C|)."""
    # A sure classifier allows few.
    detector.settings = dataclasses.replace(detector.settings, temperature=1e-3, limit=limit)
    given = features(seed=3)
    embedded = detector.embed(given)
    likely = detector.plausibility(embedded)
    count, found = int(detector.coreset.count), detector.distance(given)
    bank, of = detector.coreset.known(), detector.representative_of[:count]
    restricted, alike = 0, count if limit == "entries" else TINY.representatives
    assert alike <= count
    for y, x in ((0, 0), (3, 5), (7, 2)):
        allowed = likely[1, :, y, x][of] > 1 / (2 * alike)
        distances = (embedded[1, :, y, x] - bank).norm(dim=1)
        expected = distances[allowed].min() if allowed.any() else distances.max()
        assert float(found[1, 0, y, x]) == pytest.approx(float(expected), rel=1e-3)
        restricted += int(expected > distances.min() * 1.001)
    assert restricted


def test_a_limit_by_classes_hides_more_of_a_bank_that_is_larger_than_they_are(detector):
    """By entries next to nothing is hidden where hundreds share a class: their plausibility is that of the class."""
    given = features(seed=3)
    found = []
    for limit in ("entries", "classes"):
        detector.settings = dataclasses.replace(detector.settings, limit=limit, representatives=2)
        found.append(detector.distance(given))
    assert (found[1] >= found[0]).all()
    assert (found[1] > found[0]).any()


def test_the_classifier_learns_the_representative_nearest_to_the_centre(detector, monkeypatch):
    given = features()
    embedded = detector.embed(given).permute(0, 2, 3, 1)
    index = torch.cdist(embedded.flatten(1, 2), detector.representative).argmin(2).view(2, 8, 8)
    sure = 50 * F.one_hot(index, TINY.representatives).permute(0, 3, 1, 2).float()
    losses = []
    for logits in (sure, sure.roll(1, 1)):
        monkeypatch.setattr(detector.neighbourhood, "forward", lambda _, logits=logits: logits)
        losses.append(float(detector.neighbourhood_loss(given)))
    assert losses == pytest.approx([0, 50], abs=1e-3)


def test_position_and_neighbourhood_are_averaged_and_can_be_off(detector):
    embedded = detector.embed(features())
    both = detector.plausibility(embedded)
    parts = []
    for change in ({"neighbourhood": False}, {"position": False}):
        detector.settings = dataclasses.replace(detector.settings, neighbourhood=True, position=True)
        detector.settings = dataclasses.replace(detector.settings, **change)
        parts.append(detector.plausibility(embedded))
    torch.testing.assert_close(both, (parts[0] + parts[1]) / 2)
    detector.settings = dataclasses.replace(detector.settings, neighbourhood=False, position=False)
    assert (detector.plausibility(embedded) == 1).all()  # plain nearest neighbour


def test_every_entry_belongs_to_its_nearest_representative(detector):
    known = detector.coreset.known()
    filled = detector.representative[: len(farthest_first(known, TINY.representatives))]
    expected = torch.cdist(known, filled).argmin(1)
    assert torch.equal(detector.representative_of[: len(known)], expected)


def test_features_are_the_closed_form_of_the_published_pooling():
    detector = made(patch=5)
    given = [torch.zeros(1, 40, 8, 8), torch.zeros(1, 112, 4, 4)]
    given[0][0, 0, 4, 4] = 26.0
    embedded = detector.embed(given)[0, 0]
    assert float(embedded[4, 4]) == pytest.approx(2)
    assert float(embedded[2, 6]) == pytest.approx(1)
    assert float(embedded.sum()) == pytest.approx(26)


def test_principal_directions_are_white(detector):
    reduced = detector._reduced(detector.embed(features()))
    rows = reduced.permute(1, 0, 2, 3).flatten(1)
    torch.testing.assert_close(torch.cov(rows, correction=0), torch.eye(8), rtol=0, atol=0.02)


class Given:
    """Training data whose tables are their names."""

    asked = ()

    def features(self, _):
        return ["features"]

    def pixels(self, size):
        return [f"pixels {size}"]

    def masks(self, side):
        return [f"masks {side}"]

    def anomalies(self, *asked):
        self.asked = asked
        return self


def test_refinement_is_trained_on_synthetic_defects_and_can_be_off():
    assert [s.name for s in made().phases(Given())] == ["coreset", "positions", "neighbourhood", "scale", "refinement"]
    assert [s.name for s in made(refine=False).phases(Given())][-1] == "neighbourhood"
    *_, phase = made().phases(Given())
    assert phase.table.tables[1] == ["masks 32"]


def test_refinement_learns_from_defects_of_the_size_that_is_scored():
    data = Given()
    *_, phase = made().phases(data)
    assert data.asked == (TINY.strategies, TINY.backbone.size)
    assert phase.table.tables[0].tables[1] == [f"pixels {TINY.refine_size}"]


def test_refinement_sees_the_same_map_in_learning_and_in_scoring(detector, monkeypatch):
    seen = []
    monkeypatch.setattr(detector.refiner, "forward", lambda _, maps: seen.append(maps) or torch.zeros_like(maps))
    detector.settings = dataclasses.replace(detector.settings, refine=True)
    given = (features(), torch.rand(2, 3, 32, 32))
    detector.refine_loss((given, torch.zeros(2, 1, 32, 32)))
    detector.score(given, (64, 64))
    torch.testing.assert_close(seen[0], seen[1])


def test_the_classifier_is_not_in_training_mode_while_the_refinement_learns():
    found = made()
    *_, phase = found.phases(Given())
    with learning(found, phase):
        assert found.refiner.training
        assert not any(part.training for part in found.neighbourhood.modules())


def test_refinement_is_a_tenth_of_the_map(detector, monkeypatch):
    given = (features(), torch.rand(2, 3, 32, 32))
    plain = detector.score(given, (64, 64)).map
    detector.settings = dataclasses.replace(detector.settings, refine=True)
    monkeypatch.setattr(detector, "_residual", lambda _, maps: torch.ones_like(maps))
    torch.testing.assert_close(detector.score(given, (64, 64)).map, plain + 0.1)


def test_the_refiner_sees_the_image_and_the_map():
    torch.manual_seed(0)
    refiner, images, maps = Refine(4).eval(), torch.rand(1, 3, 32, 32), torch.rand(1, 1, 32, 32)
    plain = refiner(images, maps)
    assert float((refiner(1 - images, maps) - plain).abs().max()) > 1e-3
    assert float((refiner(images, 1 - maps) - plain).abs().max()) > 1e-3


def test_the_image_reaches_the_map_through_the_refiner(detector):
    detector.settings = dataclasses.replace(detector.settings, refine=True)
    images = torch.rand(2, 3, 32, 32)
    one, two = (detector.score((features(), given), (64, 64)).map for given in (images, 1 - images))
    assert not torch.equal(one, two)


def test_refinement_learns_the_mask_and_its_edges(detector, monkeypatch):
    masks = torch.zeros(2, 1, 32, 32)
    masks[:, :, 8:16, 8:16] = 1
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        coarse = detector._small(detector._coarse(features(), (64, 64)))
    monkeypatch.setattr(detector.refiner, "forward", lambda *_: masks - coarse)
    assert float(detector.refine_loss(((features(), images), masks))) == pytest.approx(0, abs=1e-9)
    monkeypatch.setattr(detector.refiner, "forward", lambda *_: -coarse)
    edges = 2 * 2 * 8 / (2 * 31 * 32)
    expected = 0.5 * 64 / 1024 + 0.25 * 2 * edges / 1
    assert float(detector.refine_loss(((features(), images), masks))) == pytest.approx(expected, rel=0.02)
