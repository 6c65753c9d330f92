"""The parity gate: the graph must score real images as the trained detector does."""

from collections.abc import Callable, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.core.progress import progress
from components.core.runtime import session
from components.decision.bundle import run_of
from components.decision.conformal import span
from components.decision.seeing import seen
from components.export.ties import Scorer
from components.pictures.clips import sides
from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.kept import decode

Decide = Callable[[np.ndarray, list[str]], list[Any]]


class Pair(NamedTuple):
    """Scores (B,) of the detector and of the graph, the largest difference of their maps, the range of the map."""

    ours: np.ndarray
    theirs: np.ndarray
    apart: float
    low: float
    high: float

    def near(self, score: float, heat: float) -> bool:
        """Whether scores and maps differ by no more than these."""
        return bool(np.abs(self.ours - self.theirs).max() <= score) and self.apart <= heat


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
    shaken: Sequence[Scorer] = (),
) -> dict[str, Any]:
    """Scores, maps and decisions of both, each from the files' bytes in its own way; differences relative to the span.

    *scorer* is the detector, or its early answer, on files as calibration reads them, with maps at a given size; the
    graph gets what the line decodes, without torch. *decisions* tells what scores and the groups of their images come
    to. Decisions agree too where a score lies so near to the threshold that *tolerance* of the span decides.
    *provider* computes the graph. Where it differs by more than *tolerance*, the detector's answers to the same
    pictures *shaken* count as well (``export.ties``), for each value the nearest; so many pictures are *undecided*.
    """
    opened = session(graph, provider=provider)
    batch = [0, _alike(paths, rules)]
    asked = [*([path] for path in paths), [paths[i] for i in batch]]
    pairs = [_both([scorer], opened, some, rules) for some in progress(asked, "parity")]
    spans = {
        "score": span(np.concatenate([pair.ours for pair in pairs]).astype(np.float64)),
        "map": span(np.array([limit for pair in pairs for limit in (pair.low, pair.high)])),
    }
    enough = tolerance * spans["score"], tolerance * spans["map"]
    undecided = [i for i, pair in enumerate(pairs) if shaken and not pair.near(*enough)]
    for i in undecided:
        pairs[i] = _both([scorer, *shaken], opened, asked[i], rules, enough)
        if not pairs[i].near(*enough):
            break  # the graph is another one, whatever the others show
    ours, theirs = (np.concatenate([pair[k] for pair in pairs]).astype(np.float64) for k in (0, 1))
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
        "undecided": sum(i < len(paths) for i in undecided),
        "worst_image": names[int(np.argmax(errors[: len(names)]))],
    }


def _alike(paths: list[Path], rules: Decoding) -> int:
    """The last picture as large as the first, for a batch of two; the first itself where there is none."""
    shape = decode(paths[0], rules=rules).shape
    return next((i for i in reversed(range(len(paths))) if decode(paths[i], rules=rules).shape == shape), 0)


def _both(
    scorers: Sequence[Scorer],
    opened: Any,
    paths: list[Path],
    rules: Decoding,
    enough: tuple[float, float] = (inf, inf),
) -> Pair:
    """The graph beside the first of *scorers*, and the next ones until all is near *enough*: of each score and of each
    place of a map, the nearest that any of them said."""
    pictures = [decode(path, rules=rules) for path in paths]
    theirs, heat, _ = seen(run_of(opened), pictures, rules)
    pair, apart = None, np.full(heat.shape, inf, np.float32)
    for scorer in scorers:
        mine = scorer(paths, sides(pictures[0]))
        scores, own = mine.image.numpy(), mine.map.numpy()
        np.minimum(apart, np.abs(own - heat), out=apart)
        if pair:
            scores = np.where(np.abs(pair.ours - theirs) <= np.abs(scores - theirs), pair.ours, scores)
        low, high = (pair.low, pair.high) if pair else (float(own.min()), float(own.max()))
        pair = Pair(scores, theirs, float(apart.max()), low, high)
        if pair.near(*enough):
            break
    assert pair
    return pair
