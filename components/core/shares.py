"""Shares with their uncertainty: n of m, told with the interval that the true share lies in."""

from math import sqrt

Z = 1.959963984540054  # of a normal distribution 95 % lies within so many deviations


def share_interval(hits: int, n: int) -> list[float]:
    """The 95 % Wilson interval of a share."""
    p = hits / n
    middle, half = p + Z * Z / (2 * n), Z * sqrt(p * (1 - p) / n + Z * Z / (4 * n * n))
    return [float((middle - half) / (1 + Z * Z / n)), float((middle + half) / (1 + Z * Z / n))]
