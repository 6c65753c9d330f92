"""The parity gate: the graph must score real images as the trained detector does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.core.progress import progress
from components.core.runtime import session
from components.decision.conformal import span
from components.detectors.contract import Scores
from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.imaging import to_tensor
from components.pictures.kept import decode

Scorer = Callable[[torch.Tensor], Scores]
Decide = Callable[[np.ndarray, list[str]], list[Any]]


def compare(
    answer: Scorer,
    graph: Path,
    paths: list[Path],
    names: list[str],
    decisions: Decide,
    groups: list[str],
    tolerance: float,
    rules: Decoding = DEFAULT,
) -> dict[str, Any]:
    """Scores, maps and decisions of both on whole files and one batch; differences relative to the span of values.

    *answer* is the detector, or its early answer; *decisions* tells what scores and the groups of their images come to.
    Decisions agree too where a score lies so near to the threshold that *tolerance* of the span decides.
    """
    opened = session(graph)
    images = (to_tensor(decode(path, rules=rules))[None] for path in progress(paths, "parity"))
    pairs = [_both(answer, opened, image) for image in images]
    first = to_tensor(decode(paths[0], rules=rules))
    batch = torch.stack([first, first.flip(2)])
    pairs.append(_both(answer, opened, batch))
    ours, theirs = (np.concatenate([pair[k] for pair in pairs]).astype(np.float64) for k in (0, 1))
    spans = {"score": span(ours), "map": span(np.array([limit for pair in pairs for limit in pair[3:]]))}
    map_errors = np.array([pair[2] for pair in pairs]) / spans["map"]
    errors = np.abs(ours - theirs) / spans["score"]
    known = [*groups, groups[0], groups[0]]  # the batch is the first image twice
    slack = tolerance * spans["score"]
    allowed = zip(*(decisions(ours + step, known) for step in (-slack, 0, slack)), strict=True)
    agree = [theirs_is in ours_is for theirs_is, ours_is in zip(decisions(theirs, known), allowed, strict=True)]
    return {
        "images": len(paths),
        "span": spans,
        "provider": "CPUExecutionProvider",
        "score_error": float(errors.max()),
        "map_error": float(map_errors.max()),
        "decision_agreement": float(np.mean(agree)),
        "worst_image": names[int(np.argmax(errors[: len(names)]))],
    }


@torch.inference_mode()
def _both(answer: Scorer, opened: Any, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray, float, float, float]:
    mine = answer(images)
    score, heat = opened.run(["score", "map"], {"image": images.numpy()})
    own = mine.map.numpy()
    return mine.image.numpy(), score, float(np.abs(own - heat).max()), float(own.min()), float(own.max())
