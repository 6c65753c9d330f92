"""An inverted file: which rows a query is compared with, in torch and in a graph."""

from itertools import pairwise

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from components.detectors.parts.blocks import distance
from components.detectors.parts.lists import Lists
from components.export.operators import TRANSLATIONS


@pytest.fixture
def bank():
    """Eight groups that lie apart, of 30 rows each, in an order without groups."""
    torch.manual_seed(0)
    centres = 20 * torch.randn(8, 5)
    return (centres.repeat(30, 1) + torch.randn(240, 5))[torch.randperm(240)]


@pytest.fixture
def queries(bank):
    return bank[:50] + 3 * torch.randn(50, 5)


def made(bank, most=15, probes=2, reach=0.0):
    lists = Lists(300, bank.shape[1], most, probes, reach)
    lists.build(bank)
    return lists


def test_every_row_is_in_one_list_and_lists_hold_what_lies_together(bank):
    lists = made(bank)
    lists.read()
    assert sorted(lists.order[:240].tolist()) == list(range(240))
    assert lists.ends[-1] == 240
    assert 4 < len(lists.ends) <= 15
    within = [bank[lists.order[a:b]].var(0, correction=0).sum() for a, b in pairwise([0, *lists.ends])]
    assert sum(within) / len(within) < 0.1 * bank.var(0).sum()


def test_a_query_is_compared_with_the_lists_of_its_nearest_centres(bank, queries):
    lists = made(bank)
    found = lists.distance(queries, bank)
    parts = [lists.order[a:b] for a, b in pairwise([0, *lists.ends])]
    for query, got in zip(queries, found, strict=True):
        visited = (query - lists.centres[: len(parts)]).norm(dim=1).argsort()[:2]
        rows = torch.cat([bank[parts[int(number)]] for number in visited])
        assert float(got) == pytest.approx(float((query - rows).norm(dim=1).min()), rel=1e-3)


def test_with_a_reach_only_centres_about_as_near_as_the_nearest_are_visited(bank, queries):
    lists = made(bank, probes=8, reach=0.5)
    found = lists.distance(queries, bank)
    parts = [lists.order[a:b] for a, b in pairwise([0, *lists.ends])]
    centres = lists.centres[: len(parts)]
    spread = torch.cat([(bank[part] - centre).square().sum(1) for part, centre in zip(parts, centres, strict=True)])
    visits = []
    for query, got in zip(queries, found, strict=True):
        away = (query - centres).square().sum(1)
        visited = [n for n in away.argsort()[:8].tolist() if away[n] - away.min() <= 0.5 * spread.mean()]
        rows = torch.cat([bank[parts[number]] for number in visited])
        assert float(got) == pytest.approx(float((query - rows).norm(dim=1).min()), rel=1e-3)
        visits.append(len(visited))
    assert 1 in visits
    assert max(visits) > 1
    nearest_alone, exact = made(bank, probes=1).distance(queries, bank), distance(queries, bank)
    hardly = made(bank, probes=8, reach=1e-6).distance(queries, bank)
    torch.testing.assert_close(hardly, nearest_alone)
    assert (hardly > exact + 1e-3).any()


def test_a_distance_is_never_too_small_and_exact_where_all_lists_are_visited(bank, queries):
    exact = distance(queries, bank)
    one = made(bank, probes=1).distance(queries, bank)
    assert (one >= exact - 1e-4).all()
    assert (one > exact + 1e-3).any()
    every = made(bank, probes=15)
    torch.testing.assert_close(every.distance(queries, bank), exact, rtol=1e-4, atol=1e-4)


def test_few_rows_have_no_lists_and_rows_that_are_all_alike_have_one(queries):
    few = made(queries)
    torch.testing.assert_close(few.distance(queries + 1, queries), distance(queries + 1, queries))
    assert few.ends == []
    alike = torch.ones(240, 5)
    lists = made(alike)
    torch.testing.assert_close(lists.distance(queries, alike), distance(queries, alike))
    assert lists.ends == [240]


@pytest.mark.parametrize("reach", [0.0, 0.5])
def test_lists_are_the_same_each_time_and_come_back_with_the_state(bank, queries, reach):
    lists, other = made(bank, reach=reach), Lists(300, 5, 15, 2, reach)
    assert torch.equal(lists.order, made(bank).order)
    other.load_state_dict(lists.state_dict())
    assert torch.equal(other.distance(queries, bank), lists.distance(queries, bank))


class Search(nn.Module):
    def __init__(self, bank, **settings):
        super().__init__()
        self.lists = made(bank, **settings)
        self.register_buffer("bank", bank)
        self.lists.read()

    def forward(self, queries):
        return self.lists.distance(queries, self.bank)


@pytest.mark.parametrize("settings", [{}, {"probes": 8, "reach": 0.5}])
def test_a_graph_finds_the_same_for_any_number_of_queries(bank, queries, tmp_path, settings):
    search, graph = Search(bank, **settings).eval(), tmp_path / "search.onnx"
    torch.onnx.export(
        search,
        (queries,),
        str(graph),
        dynamo=True,
        verbose=False,
        input_names=["queries"],
        dynamic_shapes=({0: torch.export.Dim("count", min=1, max=1000)},),
        custom_translation_table=TRANSLATIONS,
    )
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])
    for given in (queries, queries[:1], queries[:3].repeat(100, 1)):
        found = session.run(None, {"queries": given.numpy()})[0]
        np.testing.assert_allclose(found, search(given).numpy(), rtol=1e-4, atol=1e-3)
