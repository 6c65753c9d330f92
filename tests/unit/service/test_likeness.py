"""The order by likeness: like stands by like, from memory and from the store, within its bound."""

from datetime import timedelta

import numpy as np
import pytest

from components.service.likeness import chained
from tests.service_pages import Line

KINDS = {"crack": [1.0, 0.0, 0.0], "stain": [0.0, 1.0, 0.0], "dent": [0.0, 0.0, 1.0]}


def like(kind, seed):
    return [*(np.array(KINDS[kind]) + np.random.default_rng(seed).normal(0, 0.05, 3)), *[0.0] * 13]


@pytest.fixture
def line(bundle, tmp_path):
    return Line(bundle, tmp_path)


def mixed(line, n=12):
    """Alarms of three kinds, in turns."""
    for i in range(n):
        kind = list(KINDS)[i % 3]
        line.put(f"{kind}-{i}", timedelta(minutes=i), alarm=True, embedding=like(kind, i))


def shown(line, query=""):
    return line.get(f"/v1/records/alike?{query}")["records"]


@pytest.mark.parametrize("shipped", [False, True])
def test_like_stands_by_like(line, shipped):
    mixed(line)
    if shipped:
        line.ship()
    rows = shown(line)
    kinds = [row["image_id"].split("-")[0] for row in rows]
    assert len(rows) == 12
    assert [kinds[i] for i in (0, 4, 8)] == sorted(set(kinds), key=kinds.index)
    assert all(len(set(kinds[i : i + 4])) == 1 for i in (0, 4, 8))
    assert [row["kind"] for row in rows] == [0] * 4 + [1] * 4 + [2] * 4


def test_filters_and_the_bound_hold(line):
    mixed(line)
    line.put("good", alarm=False, embedding=like("dent", 0))
    assert len(shown(line, "decision=anomalous")) == 12
    assert {row["image_id"] for row in shown(line, "limit=3")} == {"good", "crack-0", "stain-1"}
    assert line.http.get("/v1/records/alike?limit=401").status_code == 422


def test_records_without_an_embedding_come_last_and_lose_nothing(line):
    mixed(line, 3)
    line.put("blind", alarm=True, embedding=None)
    rows = shown(line)
    assert (len(rows), rows[-1]["image_id"], rows[-1]["kind"]) == (4, "blind", None)


def test_a_chain_of_none_and_of_equals():
    assert chained(np.zeros((0, 3))) == ([], [])
    order, _ = chained(np.ones((3, 2)))
    assert sorted(order) == [0, 1, 2]


def test_a_time_without_records_has_none(line):
    mixed(line)
    assert shown(line, "since=2020-01-01&until=2020-01-02") == []
