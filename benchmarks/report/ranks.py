"""Mean ranks over views, and how far apart they must be: Friedman's test and Nemenyi's critical difference.

After J. Demšar, "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf, sqrt

import numpy as np
from scipy.stats import friedmanchisquare, rankdata, studentized_range

LEVEL = 0.05
Scores = Mapping[str, Mapping[str, float]]  # view -> method -> score, higher is better


@dataclass(frozen=True)
class Ranking:
    """Methods that every view measured, best mean rank first; *ranks* by method and view, 1 is best."""

    views: tuple[str, ...]
    ranks: Mapping[str, tuple[float, ...]]
    p: float  # of Friedman's test that all methods are alike
    difference: float  # of two mean ranks, above which they differ

    @property
    def means(self) -> dict[str, float]:
        return {name: float(np.mean(own)) for name, own in self.ranks.items()}

    @property
    def apart(self) -> list[tuple[str, str]]:
        """Pairs, the better one first, whose mean ranks differ by more than the critical difference."""
        means = self.means
        return [(a, b) for a, b in combinations(means, 2) if means[b] - means[a] > self.difference]


def critical_difference(methods: int, views: int, level: float = LEVEL) -> float:
    """Nemenyi: of two mean ranks over *views* among *methods*."""
    q = float(studentized_range.ppf(1 - level, methods, inf)) / sqrt(2)
    return q * sqrt(methods * (methods + 1) / (6 * views))


def ranking(scores: Scores, views: Sequence[str]) -> Ranking:
    """Of the methods that each of *views* has; ties share the mean of their ranks."""
    methods = sorted(set.intersection(*(set(scores[view]) for view in views))) if views else []
    if not methods:
        return Ranking(tuple(views), {}, 1.0, 0.0)
    table = np.array([[scores[view][name] for name in methods] for view in views])  # (views, methods)
    ranks = np.array([rankdata(-row) for row in table])
    order = sorted(range(len(methods)), key=lambda i: (ranks[:, i].mean(), methods[i]))
    found = {methods[i]: tuple(map(float, ranks[:, i])) for i in order}
    p = float(friedmanchisquare(*table.T).pvalue) if len(methods) > 2 and len(views) > 1 else 1.0
    return Ranking(tuple(views), found, p, critical_difference(len(methods), len(views)))
