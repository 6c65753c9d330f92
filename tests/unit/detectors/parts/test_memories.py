"""What methods remember by: learned memories, codebooks and coresets, each against a formula."""

import copy
import math

import pytest
import torch

from components.detectors.parts.coreset import Coreset, farthest_first
from components.detectors.parts.memory import Memory, entropy
from components.detectors.parts.quantiser import Latent, Quantiser, straight_through


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_memory_is_addressed_by_the_cosine():
    memory, queries = Memory(4, 3, parts=2, temperature=0.5), torch.randn(2, 5, 3)
    cosine = torch.cosine_similarity(queries[:, :, None], memory.slots[:, None], dim=3)
    torch.testing.assert_close(memory.address(queries), (cosine / 0.5).softmax(2))


def test_small_address_weights_become_zero_and_the_rest_sums_to_one():
    plain, shrunk = Memory(8, 4), Memory(8, 4, shrink=0.1)
    shrunk.load_state_dict(plain.state_dict())
    queries = torch.randn(1, 6, 4)
    weights = plain.address(queries)
    kept = torch.where(weights > 0.1, weights, 0.0)
    assert (kept == 0).any()
    torch.testing.assert_close(shrunk.address(queries), kept / kept.sum(2, keepdim=True))


def test_entropy_is_small_when_few_slots_answer():
    assert float(entropy(torch.eye(4))) == pytest.approx(0, abs=1e-6)
    assert float(entropy(torch.full((2, 4), 0.25))) == pytest.approx(math.log(4))


def test_words_are_the_nearest_ones():
    codebook, maps = Quantiser(9, 3), torch.randn(2, 3, 4, 4)
    expected = torch.cdist(maps.permute(0, 2, 3, 1).reshape(-1, 3), codebook.words).argmin(1).view(2, 4, 4)
    assert torch.equal(codebook.codes(maps), expected)


def test_words_move_to_the_mean_of_what_they_were_chosen_for():
    codebook = Quantiser(2, 1, 0.5)
    codebook.words.copy_(torch.tensor([[0.0], [10.0]]))
    maps = torch.tensor([1.0, 3.0, 8.0, 9.0]).view(1, 1, 2, 2)
    codes = codebook.codes(maps)
    for _ in range(30):
        codebook.learn(maps, codes)
    torch.testing.assert_close(codebook.words, torch.tensor([[2.0], [8.5]]), rtol=1e-3, atol=0)


def test_words_that_nothing_chose_are_put_onto_features():
    codebook, maps = Quantiser(3, 2), 5 + torch.rand(1, 2, 4, 4)
    codebook.counts.copy_(torch.tensor([4.0, 0.0, 0.01]))
    before = codebook.words.clone()
    codebook.revive(maps)
    rows = maps[0].flatten(1).T
    on_features = (torch.cdist(codebook.words, rows) == 0).any(1)
    assert on_features.tolist() == [False, True, True]
    assert torch.equal(codebook.words[0], before[0])


def test_commitment_draws_features_to_their_words():
    latent, images = Latent(8, 4, 1, 6, 0.9), torch.rand(2, 3, 32, 32)
    losses = []
    for weight in (0.25, 0.5):
        torch.manual_seed(1)
        made = copy.deepcopy(latent)
        losses.append(made.loss(images, weight)[1])
        losses[-1].backward()
        assert made.before_lo.weight.grad.any()
        assert made.before_hi.weight.grad.any()
    assert float(losses[0]) > 0
    assert float(losses[1]) == pytest.approx(2 * float(losses[0]))


def test_gradients_pass_the_quantisation_straight_through():
    maps, words = torch.randn(1, 2, 3, 3, requires_grad=True), torch.randn(1, 2, 3, 3)
    found = straight_through(maps, words)
    torch.testing.assert_close(found, words)
    (2 * found).sum().backward()
    torch.testing.assert_close(maps.grad, torch.full_like(words, 2.0))


def test_farthest_first_is_a_greedy_choice_of_centres():
    rows = torch.tensor([[0.0], [1.0], [9.0], [4.0]])
    assert farthest_first(rows, 4).tolist() == [0, 2, 3, 1]
    assert farthest_first(rows, 2).tolist() == [0, 2]


def test_a_full_bank_is_thinned_by_no_more_than_it_takes():
    coreset = Coreset(4, 1, growth=1.5)
    coreset.radius.fill_(0.5)
    coreset.offer(torch.arange(4.0)[:, None])
    assert coreset.known()[:, 0].tolist() == [0, 1, 2, 3]
    coreset.offer(torch.tensor([[10.0]]))
    assert float(coreset.radius) == 1.125  # twice by a half: the first radius that makes room
    assert coreset.known()[:, 0].tolist() == [0, 2, 10]
