"""The parity gate: the graph must score real images as the trained detector does."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.core.progress import progress
from components.core.runtime import session
from components.decision.bundle import run_of
from components.decision.conformal import span
from components.decision.seeing import seen
from components.detectors.contract import Scores
from components.pictures.clips import sides
from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.kept import decode

Scorer = Callable[[Sequence[Path], tuple[int, int]], Scores]
Decide = Callable[[np.ndarray, list[str]], list[Any]]


class Pair(NamedTuple):
    """Scores (B,) of the detector and of the graph, the largest difference of their maps, the range of the map."""

    ours: np.ndarray
    theirs: np.ndarray
    apart: float
    low: float
    high: float


def compare(
    scorer: Scorer,
    graph: Path,
    paths: list[Path],
    names: list[str],
    decisions: Decide,
    groups: list[str],
    tolerance: float,
    rules: Decoding = DEFAULT,
    provider: str = "cpu",
) -> dict[str, Any]:
    """Scores, maps and decisions of both, each from the files' bytes in its own way; differences relative to the span.

    *scorer* is the detector, or its early answer, on files as calibration reads them, with maps at a given size; the
    graph gets what the line decodes, without torch. *decisions* tells what scores and the groups of their images come
    to. Decisions agree too where a score lies so near to the threshold that *tolerance* of the span decides.
    *provider* computes the graph.
    """
    opened = session(graph, provider=provider)
    batch = [0, _alike(paths, rules)]
    pairs = [_both(scorer, opened, [path], rules) for path in progress(paths, "parity")]
    pairs.append(_both(scorer, opened, [paths[i] for i in batch], rules))
    ours, theirs = (np.concatenate([pair[k] for pair in pairs]).astype(np.float64) for k in (0, 1))
    spans = {"score": span(ours), "map": span(np.array([limit for pair in pairs for limit in (pair.low, pair.high)]))}
    errors = np.abs(ours - theirs) / spans["score"]
    known = [*groups, *(groups[i] for i in batch)]
    slack = tolerance * spans["score"]
    allowed = zip(*(decisions(ours + step, known) for step in (-slack, 0, slack)), strict=True)
    agree = [theirs_is in ours_is for theirs_is, ours_is in zip(decisions(theirs, known), allowed, strict=True)]
    return {
        "images": len(paths),
        "span": spans,
        "provider": provider,
        "score_error": float(errors.max()),
        "map_error": max(pair.apart for pair in pairs) / spans["map"],
        "decision_agreement": float(np.mean(agree)),
        "worst_image": names[int(np.argmax(errors[: len(names)]))],
    }


def _alike(paths: list[Path], rules: Decoding) -> int:
    """The last picture as large as the first, for a batch of two; the first itself where there is none."""
    shape = decode(paths[0], rules=rules).shape
    return next((i for i in reversed(range(len(paths))) if decode(paths[i], rules=rules).shape == shape), 0)


def _both(scorer: Scorer, opened: Any, paths: list[Path], rules: Decoding) -> Pair:
    pictures = [decode(path, rules=rules) for path in paths]
    mine = scorer(paths, sides(pictures[0]))
    score, heat, _ = seen(run_of(opened), pictures, rules)
    own = mine.map.numpy()
    return Pair(mine.image.numpy(), score, float(np.abs(own - heat).max()), float(own.min()), float(own.max()))
