"""What chooses epochs and undoes phases: how well synthetic anomalies are told from normals."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from components.detectors.contract import Scores
from components.training.select import SyntheticAUROC, finite


class Given:
    """A table of scores."""

    def __init__(self, scores):
        self.scores = torch.tensor(scores)

    def __len__(self):
        return len(self.scores)

    def take(self, indices):
        return self.scores[list(indices)]


class Says(nn.Module):
    """A detector whose inputs are its scores."""

    size = 8

    def __init__(self, scores):
        super().__init__()
        self.weight, self.table = nn.Parameter(torch.zeros(())), Given(scores)

    def inputs(self, _):
        return self.table

    def score(self, inputs, size):
        return Scores(inputs, inputs.view(-1, 1, 1, 1).expand(-1, 1, *size))


def auroc(scores, anomalous):
    check = SimpleNamespace(data=SimpleNamespace(images=None), anomalous=np.array(anomalous))
    return SyntheticAUROC(check)(Says(scores))


def test_what_chooses_is_the_auroc_of_synthetic_anomalies():
    assert auroc([0.1, 0.3, 0.2, 0.4], [False, False, True, True]) == pytest.approx(0.75)
    assert auroc([float(i) for i in range(40)], [i >= 20 for i in range(40)]) == 1  # more than one batch


def test_a_score_that_is_no_number_is_the_most_anomalous():
    assert auroc([0.1, 0.2, float("nan")], [False, False, True]) == 1
    assert auroc([0.1, float("nan"), 0.2], [False, False, True]) == 0.5


def test_float32_scores_become_large_numbers_too():
    """1e300 is no float32: what was to be a number would be infinite again."""
    found = finite(np.array([np.nan, np.inf, -np.inf, 1.0], np.float32))
    assert np.isfinite(found).all()
    assert found[0] == found[1] > found[3] > found[2]
