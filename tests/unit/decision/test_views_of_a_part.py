"""Several views are one decision: the rule's bound, its joint calibration, and by simulation that alpha holds."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.core.errors import CalibrationError
from components.decision.parts import Rule

DRAWN = 4000


def views(rng, parts, k, shared):
    """Conformal p-values (parts, k) of good parts whose views have *shared* of their noise together, by 199 normals."""
    scores = shared * rng.normal(size=(parts, 1)) + (1 - shared**2) ** 0.5 * rng.normal(size=(parts, k))
    normals = np.sort(rng.normal(size=199))
    return (200 - np.searchsorted(normals, scores, side="left")) / 200


@pytest.mark.parametrize("shared", [0.0, 0.7, 0.98])
@pytest.mark.parametrize(("k", "vote"), [(2, 1), (4, 1), (4, 2), (5, 5)])
def test_alpha_holds_for_good_parts_however_their_views_hang_together(k, vote, shared):
    rng, rates = np.random.default_rng(3), []
    for _ in range(20):  # the promise is over the draw of the normals, too
        rule, parts = Rule(k, vote, 0.1), views(rng, DRAWN // 20, k, shared)
        rates.append(np.mean([rule.p_value(list(part)) <= 0.1 for part in parts]))
    assert np.mean(rates) <= 0.1 + 3 * np.std(rates) / len(rates) ** 0.5


def test_taking_the_worst_view_without_the_correction_would_not_hold():
    parts = views(np.random.default_rng(3), DRAWN, 4, 0.0)
    assert np.mean(parts.min(1) <= 0.1) > 0.25


@pytest.mark.parametrize("shared", [0.0, 0.9])
@pytest.mark.parametrize("vote", [1, 2])
def test_good_parts_make_it_exact(tmp_path, vote, shared):
    rng, rates = np.random.default_rng(5), []
    for number in range(20):
        both = views(rng, 400, 3, shared)
        kept = tmp_path / f"{number}.json"
        kept.write_text(json.dumps(both[:199].tolist()))
        rule = Rule.of(3, vote, 0.1, kept)
        rates.append(np.mean([rule.p_value(list(part)) <= 0.1 for part in both[199:]]))
    assert np.mean(rates) <= 0.1 + 3 * np.std(rates) / len(rates) ** 0.5
    assert np.mean(rates) > 0.06  # and not much less, as with the bound where views hang together


@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=6), st.integers(1, 6))
def test_the_p_value_is_the_bound_by_its_definition(values, vote):
    vote = min(vote, len(values))
    p = Rule(len(values), vote, 0.05).p_value(values)
    assert p == pytest.approx(min(1.0, sorted(values)[vote - 1] * len(values) / vote))
    assert Rule(len(values), vote, 0.05).p_value(values[::-1]) == p


def test_one_view_is_what_it_was():
    assert Rule(1, 1, 0.05).decide({"top": 0.05}) == (0.05, "anomalous")
    assert Rule(1, 1, 0.05).decide({"top": 0.051}) == (0.051, "normal")


def test_a_vote_of_two_needs_two():
    rule = Rule(3, 2, 0.05)
    assert rule.decide({"a": 0.001, "b": 0.9, "c": 0.8})[1] == "normal"
    assert rule.decide({"a": 0.001, "b": 0.9, "c": 0.01})[1] == "anomalous"


def test_too_few_normals_for_so_many_views_are_told():
    Rule(4, 1, 0.05).require_reachable(79)
    with pytest.raises(CalibrationError, match=r"4 views with vote 1 need 79 calibrate normals at alpha 0\.05"):
        Rule(4, 1, 0.05).require_reachable(78)


@pytest.mark.parametrize("content", ["[", "[[0.5]]", "[[0.5, 0]]", "[[0.5, 1.5]]", "{}", "[[0.5, 0.5]]"])
def test_a_calibration_that_does_not_fit_is_told(tmp_path, content):
    kept = tmp_path / "parts.json"
    kept.write_text(content)
    with pytest.raises(CalibrationError):
        Rule.of(2, 1, 0.05, kept)
    with pytest.raises(ValueError, match="1 p-values for 2 views"):
        Rule(2, 1, 0.05).p_value([0.5])
