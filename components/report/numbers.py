"""How figures are written for people: percentages, raw scores, counts."""

from collections.abc import Sequence

from components.core.shares import share_interval
from components.report.blocks import Share


def percent(share: float) -> str:
    """0.0155 as "1.6 %", 0.05 as "5 %"; what rounds to all or nothing, and is not, says so."""
    value = 100 * share
    if 0 < value < 0.05:
        return "under 0.1 %"
    if 99.95 <= value < 100:
        return "over 99.9 %"
    return f"{value:.1f}".removesuffix(".0") + " %"


def between(interval: Sequence[float]) -> str:
    """An interval of shares."""
    return f"{percent(interval[0])} to {percent(interval[1])}"


def raw(score: float) -> str:
    """A raw score, as calibration.json and the model card tell it."""
    return f"{score:.6g}"


def found(hits: int, n: int) -> tuple[Share, str]:
    """Cells of a share: n of m as a bar, and its 95 % interval."""
    return Share(hits / n, f"{hits} of {n} ({percent(hits / n)})"), between(share_interval(hits, n))


def counted(n: int, what: str, several: str = "") -> str:
    """ "1 picture", "2 pictures"."""
    return f"{n:,} {what if n == 1 else several or what + 's'}"
