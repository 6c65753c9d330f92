"""What must be present for a detector to be SAP2; each point fails without it."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from components.detectors.catalogue import settings_for
from components.detectors.methods.sap2 import SAP2
from tests.given import passed

TINY = settings_for("sap2", "tiny")
WIDTH = 112


def held(detector, *chunks):
    """Give *detector* vectors of normals for its bank: features of one position are their own mean."""
    data = SimpleNamespace(features=lambda _: range(sum(map(len, chunks))))
    passed(detector, "bank", *([chunk[:, :, None, None]] for chunk in chunks), data=data)


@pytest.fixture
def detector():
    torch.manual_seed(0)
    made = SAP2(TINY, pretrained=False).eval()
    held(made, torch.randn(20, WIDTH))
    return made


@pytest.fixture
def features():
    torch.manual_seed(1)
    return [torch.randn(3, WIDTH, 4, 4)]


def literal(detector, z, skip, held=20):
    """The paper's equations, one image at a time."""
    found = []
    for image in z:
        bank = detector.bank[:held]
        order = F.cosine_similarity(image[None], bank).argsort(descending=True)
        order = order[skip : skip + detector.settings.neighbours]
        x = bank[order] @ detector.project.weight.T
        a = torch.softmax((x @ detector.query.weight.T) @ (x @ detector.key.weight.T).T / WIDTH**0.5, 1)
        found.append((a @ x + x).mean(0))
    return torch.stack(found)


@pytest.mark.parametrize("skip", [0, 1])
def test_the_nearest_normals_are_projected_attended_and_averaged(detector, features, skip):
    z = detector.vectors(features)
    torch.testing.assert_close(detector.normal(z, skip), literal(detector, z, skip))


@pytest.mark.parametrize("attention", [True, False])
@pytest.mark.parametrize(("number", "skip"), [(1, 0), (2, 0), (2, 1), (10, 0), (10, 1), (33, 0), (33, 1)])
def test_of_fewer_normals_than_neighbours_all_count_and_nothing_else(number, skip, attention, features):
    torch.manual_seed(0)
    detector = SAP2(dataclasses.replace(TINY, neighbours=32, attention=attention), pretrained=False).eval()
    held(detector, torch.randn(number, WIDTH) - 1)  # most point away: rows of zero are nearer than they are
    z = detector.vectors(features)
    expected = literal(detector, z, skip, number)
    if not attention:
        nearest = F.cosine_similarity(z[:, None], detector.bank[None, :number], dim=2).argsort(1, descending=True)
        expected = detector.project(detector.bank[nearest[:, skip : skip + 32]]).mean(1)
    torch.testing.assert_close(detector.normal(z, skip), expected, rtol=1e-4, atol=1e-5)


def test_a_single_normal_is_its_own_neighbour(features):
    torch.manual_seed(0)
    detector = SAP2(TINY, pretrained=False).eval()
    held(detector, torch.randn(1, WIDTH))
    z = detector.vectors(features)
    torch.testing.assert_close(detector.normal(z, skip=1), literal(detector, z, 0, 1))
    loss = detector.loss(features)
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in (detector.project.weight, detector.query.weight))


def test_attention_is_part_of_it(detector, features):
    z = detector.vectors(features)
    with_it = detector.normal(z)
    detector.settings = dataclasses.replace(TINY, attention=False)
    assert not torch.allclose(detector.normal(z), with_it, atol=1e-3)


def test_training_leaves_the_image_itself_out(detector):
    itself = detector.bank[5][None]
    other = detector.normal(itself, skip=1)
    detector.bank[5] = 100 * itself  # same direction: still the nearest, and very visible if it is used
    torch.testing.assert_close(detector.normal(itself, skip=1), other)
    assert not torch.allclose(detector.normal(itself), other, atol=1.0)


def test_score_is_the_cosine_disagreement(detector, features):
    z = detector.vectors(features)
    expected = 1 - F.cosine_similarity(detector.normal(z), z @ detector.project.weight.T)
    torch.testing.assert_close(detector.score(features, (64, 64)).image, expected)


def test_loss_is_disagreement_and_constraint(detector, features):
    z = detector.vectors(features)
    v = z @ detector.project.weight.T
    apart = (1 - F.cosine_similarity(detector.normal(z, 1), v)).mean()
    tie = (z - v).square().mean() + (1 - F.cosine_similarity(z, v)).mean()
    torch.testing.assert_close(detector.loss(features), apart + 2 * tie)
    detector.settings = dataclasses.replace(TINY, constraint=0.0)
    torch.testing.assert_close(detector.loss(features), apart)


def test_the_map_is_the_score_by_position(detector, features):
    scores = detector.score(features, (4, 4))
    torch.testing.assert_close(scores.map.mean((1, 2, 3)), scores.image)
    assert float(scores.map.std()) > 0


def test_of_a_large_set_a_drawn_subset_is_kept_in_order():
    torch.manual_seed(0)
    detector = SAP2(dataclasses.replace(TINY, bank_size=8), pretrained=False)
    held(detector, *torch.arange(1, 21.0)[:, None].expand(-1, WIDTH).split(7))
    found = detector.bank[:, 0]
    assert detector.unused.tolist() == [0] * 8  # full: a fixed step would have left one empty
    assert (found.diff() > 0).all()
    assert len(set(found.diff().tolist())) > 1
    assert int(detector.count) == 20


def test_only_the_three_matrices_learn(detector):
    names = {name for name, p in detector.named_parameters() if p.requires_grad}
    assert names == {"project.weight", "query.weight", "key.weight"}
