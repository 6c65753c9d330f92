"""Split conformal: valid, exact at the threshold, honest about too few normals."""

import numpy as np
import pytest

from components.calibration.calibrate import require_enough, summary
from components.calibration.settings import CalibrationSettings
from components.core.errors import CalibrationError
from components.decision.conformal import Table, needed, p_values, threshold
from tests.given import decisions


@pytest.mark.parametrize("alpha", [0.01, 0.05, 0.1, 0.3])
@pytest.mark.parametrize("n", [99, 100, 137])
def test_threshold_and_p_value_decide_alike(alpha, n):
    rng = np.random.default_rng(n)
    scores = rng.normal(size=n).round(1)  # rounded: ties
    known = Table.of(summary(scores, CalibrationSettings(alpha)))
    asked = np.r_[scores, rng.normal(size=500)]
    by_threshold = ["anomalous" if s > known.threshold else "normal" for s in asked]
    assert decisions(known, asked) == by_threshold


def test_false_alarm_rate_is_at_most_alpha_and_near_it():
    rng, rates = np.random.default_rng(0), []
    for _ in range(400):
        known = Table(np.sort(rng.normal(size=99)), 0.05, 0.0)
        rates.append(np.mean([d == "anomalous" for d in decisions(known, rng.normal(size=200))]))
    assert 0.045 < np.mean(rates) < 0.055


def test_p_values_by_hand():
    known = Table(np.array([1.0, 2.0, 3.0]), 0.5, 3.0)
    np.testing.assert_allclose(p_values(known, np.array([0.0, 2.0, 9.0])), [1.0, 0.75, 0.25])


def test_too_few_normals_are_counted(tmp_path):
    assert needed(0.05) == 19
    assert needed(0.01) == 99
    with pytest.raises(CalibrationError, match="19 are needed"):
        require_enough(18, 0.05, tmp_path)
    assert threshold(np.arange(19.0), 0.05) == 18.0


def test_rounding_does_not_flip_the_image_that_sets_the_threshold():
    scores = np.random.default_rng(1).normal(size=106)
    known = Table.of(summary(scores, CalibrationSettings(0.05)))
    at = threshold(scores, 0.05)
    shaken = at + np.array([-1e-6, 0.0, 1e-6]) * np.ptp(scores)
    assert decisions(known, shaken) == ["normal"] * 3
    assert decisions(known, np.array([at + 1e-3 * np.ptp(scores)])) == ["anomalous"]
