"""The gate: every check can fail alone, and is told in words."""

from dataclasses import replace
from pathlib import Path

import pytest

from components.registry.gate import Figures, gate
from components.registry.settings import GateSettings

CHAMPION = Figures(
    synthetic_auroc=0.99,
    synthetic_recall=0.9,
    frozen_alarms=0.05,
    frozen=100,
    window_alarms=0.9,
    window=80,
    reviewed_recall=0.0,
    reviewed=0,
    latency_ms=20.0,
    parity_error=0.1,
    alpha=0.05,
    calibration_n=100,
)
GOOD = replace(CHAMPION, window_alarms=0.06)


def test_a_good_challenger_is_promoted_with_all_checks_told():
    outcome = gate(CHAMPION, GOOD, 0.0, GateSettings())
    assert outcome.action == "promote"
    assert all(reason.startswith("passed: ") for reason in outcome.reasons)
    assert len(outcome.reasons) == 9


@pytest.mark.parametrize(
    ("change", "contamination", "said"),
    [
        ({"synthetic_auroc": 0.96}, 0.0, "synthetic AUROC 0.960, champion 0.990"),
        ({"synthetic_recall": 0.79}, 0.0, "recall of synthetic anomalies 0.790"),
        ({"frozen_alarms": 0.1}, 0.0, "false alarms on 100 frozen normals 0.100, limit 0.094"),
        ({"window_alarms": 0.11}, 0.0, "alarms on the drifted window 0.110, limit 0.100"),
        ({}, 0.051, "estimated share of defects among the candidates 0.051, limit 0.05"),
        ({"parity_error": 1.1}, 0.0, "parity error 1.1"),
        ({"latency_ms": 31.0}, 0.0, "latency 31 ms, budget 30 ms"),
        ({"calibration_n": 18}, 0.0, "calibrated on 18 normals, 19 needed"),
    ],
)
def test_each_check_refuses_alone(change, contamination, said):
    outcome = gate(CHAMPION, replace(GOOD, **change), contamination, GateSettings())
    assert outcome.action == "refuse"
    assert outcome.reasons[0].startswith("failed: ")
    assert said in outcome.reasons[0]
    assert sum(reason.startswith("failed: ") for reason in outcome.reasons) == 1


def test_a_challenger_must_help_on_the_drifted_window():
    champion = replace(CHAMPION, window_alarms=0.06)
    outcome = gate(champion, GOOD, 0.0, GateSettings())
    assert (outcome.action, "held-out images" in outcome.reasons[0]) == ("refuse", True)


def test_reviewed_defects_count_when_there_are_any():
    champion = replace(CHAMPION, reviewed_recall=0.9, reviewed=12)
    worse = replace(GOOD, reviewed_recall=0.7, reviewed=12)
    outcome = gate(champion, worse, 0.0, GateSettings())
    assert outcome.action == "refuse"
    assert "recall of 12 reviewed defects 0.700, champion 0.900" in outcome.reasons[0]


def test_bundles_take_turns_so_that_a_busy_moment_slows_both(monkeypatch):
    from components.retraining import compare

    order = []
    monkeypatch.setattr(compare, "record", lambda bundle, path, *_: order.append((bundle, path.name)))
    compare._scored({"champion": "old", "challenger": "new"}, {"frozen": [Path("a"), Path("b")], "window": []})
    assert order == [("old", "a"), ("new", "a"), ("old", "b"), ("new", "b")]
