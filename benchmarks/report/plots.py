"""The report's figures: accuracy against the time of a picture, and mean ranks with their critical difference."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.report.gather import Results
from benchmarks.report.ranks import Ranking
from benchmarks.report.taxonomy import CUI, PLACES
from components.report.figures import drawing

Save = Callable[[Any], bytes]  # a figure as the bytes of its file
PAPER = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 0.5}  # below a name
FAMILIES = dict(zip(CUI, ("#0b6e75", "#d1603d", "#4a90c2", "#7a5ca8", "#8a96a3"), strict=True))


def front(points: dict[str, tuple[float, float]]) -> list[str]:
    """Of name -> (cost, quality) those that no other beats in both, cheapest first."""
    found: list[str] = []
    for name in sorted(points, key=lambda n: (points[n][0], -points[n][1])):
        if not found or points[name][1] > points[found[-1]][1]:
            found.append(name)
    return found


def pareto(found: Results, save: Save) -> bytes:
    """Mean image AUROC over the main views against the exported graph's time."""
    points = {name: (found.cost(name).ratio, found.mean[name]) for name in found.mean}
    with drawing((8.2, 5.2)) as (figure, axis):
        line = front(points)
        axis.step(
            *zip(*(points[n] for n in line), strict=True), where="post", color="#8a96a3", linestyle="--", zorder=1
        )
        for name, (ratio, quality) in points.items():
            axis.plot(ratio, quality, "o", color=_colour(name), markersize=8 if name in line else 6, zorder=4)
        axis.set(xscale="log", xlabel="time of the exported graph, times the bare backbone (log)")
        axis.set(ylabel=f"mean image AUROC over {len(found.main)} views")
        ticks = [0.5, 1, 2, 3, 4, 6, 8]
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axis.set_xticks([], minor=True)
        axis.margins(x=0.12)
        _legend(figure, found)
        figure.draw_without_rendering()  # fixes the axes, in whose pixels the names are laid out
        named(axis, points, set(line))
        return save(figure)


def named(axis: Any, points: dict[str, tuple[float, float]], bold: set[str]) -> None:
    """Write each name where it covers no other name and no point: right of it, left, above or below."""
    at = {name: axis.transData.transform(point) for name, point in points.items()}
    taken = [(x - 5, y - 5, x + 5, y + 5) for x, y in at.values()]
    for name in sorted(points, key=lambda n: points[n]):
        x, y = at[name]
        width, height = 7.5 * len(name) + 2, 13.0
        places = ((x + 7, y + 3), (x - width - 6, y + 3), (x - width / 2, y + 8), (x - width / 2, y - 20))
        left, low = min(places, key=lambda p: sum(_covers((*p, p[0] + width, p[1] + height), box) for box in taken))
        taken.append((left, low, left + width, low + height))
        weight = "bold" if name in bold else "normal"
        inside = axis.transAxes.inverted().transform((left, low))  # a file may have other pixels
        axis.annotate(name, inside, xycoords="axes fraction", fontsize=9, fontweight=weight, bbox=PAPER, zorder=2.5)


Box = tuple[float, float, float, float]


def _covers(one: Box, other: Box) -> float:
    """The area that two boxes share."""
    wide, high = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
    return max(0.0, wide) * max(0.0, high)


def ranks(found: Ranking, save: Save) -> bytes:
    """Each method's mean rank as a point, its ranks by view as small ones, and the critical difference."""
    means = found.means
    with drawing((8.2, 0.3 * len(means) + 1.4)) as (figure, axis):
        rows = np.arange(len(means))[::-1]
        best = min(means.values())
        axis.axvspan(best, best + found.difference, color="#e6f2f3", zorder=0)
        for row, (name, mean) in zip(rows, means.items(), strict=True):
            own = found.ranks[name]
            axis.plot([min(own), max(own)], [row, row], color="#c3ccd6", zorder=1)
            axis.plot(own, [row] * len(own), "|", color="#8a96a3", markersize=7, zorder=2)
            axis.plot(mean, row, "o", color=_colour(name), markersize=7, zorder=3)
        axis.set_yticks(rows, list(means))
        axis.set(xlabel=f"rank by image AUROC on {len(found.views)} views: point mean, lines single views; 1 is best")
        axis.set_xlim(0.5, len(means) + 0.5)
        axis.grid(axis="y", visible=False)
        told = f"within the critical difference of the best ({found.difference:.1f} ranks)"
        figure.legend(handles=[_patch("#e6f2f3", told)], loc="outside upper left", fontsize=9)
        return save(figure)


def _colour(name: str) -> str:
    return FAMILIES[PLACES[name].cui] if name in PLACES else "#8a96a3"


def _legend(figure: Any, found: Results) -> None:
    used = {PLACES[name].cui for name in found.mean if name in PLACES}
    handles = [_patch(colour, family) for family, colour in FAMILIES.items() if family in used]
    figure.legend(handles=handles, loc="outside upper left", ncols=4, fontsize=8.5, title=None)


def _patch(colour: str, label: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour, label=label)
