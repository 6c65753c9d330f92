"""Which of several detectors is taken, without a label: docs/adr/0025-the-choice.md.

A detector's worth is how well it tells graded anomalies from good pictures, as they are and as they may come tomorrow.
The reference is taken unless another one is better than it for certain, on the same pictures.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from components.core.artefacts import read_json
from components.core.records import CHECK_TABLE, NORMAL, kept_score
from components.decision.calibration import standardised
from components.decision.paired import PICTURES, share_better, worth

REFERENCE = "patchcore"
CERTAIN = 0.95  # share of the resampled pictures on which another detector must be better than the reference
MOST = 3  # members of an ensemble that the evidence puts together


@dataclass(frozen=True)
class Choice:
    """The detector that is taken, the worth of each, and one sentence for each of them."""

    detector: str
    worths: dict[str, float]
    reasons: tuple[str, ...]


def choose(candidates: Mapping[str, Path], reference: str = REFERENCE, seed: int = 0) -> Choice:
    """The choice among trained detectors, each given by the folder of its model, calibration and bundle.

    Where one was trained before there was evidence (check.parquet), all are compared by the score in their histories.
    """
    tables = evidence_of(candidates)
    return by_evidence(tables, reference, seed) if len(tables) == len(candidates) else _by_history(candidates)


def evidence_of(candidates: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    """CHECK_COLUMNS of those of the trained detectors that have left them."""
    tables = {name: at / "model" / CHECK_TABLE for name, at in candidates.items()}
    return {name: pd.read_parquet(path) for name, path in tables.items() if path.exists()}


def by_evidence(
    found: Mapping[str, pd.DataFrame], reference: str = REFERENCE, seed: int = 0, certain: float = CERTAIN
) -> Choice:
    """The choice from CHECK_COLUMNS of each candidate, which were all checked with the same pictures."""
    worths = {name: worth(table) for name, table in found.items()}
    best = max(sorted(worths), key=lambda name: worths[name])
    said = {
        name: f"{name}: graded anomalies against good pictures, AUROC {worths[name]:.4f}" for name in sorted(worths)
    }
    for name, alike in agreement(found).items():
        said[name] += f"; its order of the pictures agrees with the others' by {alike:.2f}"
    if reference not in found or best == reference:
        return Choice(best, worths, tuple(said.values()))
    share = share_better(found[best], found[reference], seed)
    taken = best if share >= certain else reference
    said[best] += f"; better than {reference} on {share:.0%} of resampled pictures, {certain:.0%} are asked for"
    return Choice(taken, worths, tuple(said.values()))


def agreement(found: Mapping[str, pd.DataFrame]) -> dict[str, float]:
    """Mean rank correlation of each one's scores with those of the others, of three and more with the same pictures.

    One that agrees with nobody sees something else, for better or worse: that is told, and nothing is chosen by it.
    """
    from scipy.stats import rankdata

    alike = [name for name in sorted(found) if found[name][PICTURES].equals(found[min(found)][PICTURES])]
    if len(alike) < 3:
        return {}
    order = np.corrcoef([rankdata(found[name]["score"]) for name in alike])
    return {name: float((row.sum() - 1) / (len(alike) - 1)) for name, row in zip(alike, order, strict=True)}


def averaged(found: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """CHECK_COLUMNS of the ensemble of detectors: the mean of their standardised scores (training/combine.py)."""
    scores = [
        standardised(table["score"].to_numpy(float), table[table["kind"] == NORMAL]["score"].to_numpy(float))
        for table in found
    ]
    return found[0].assign(score=np.mean(scores, axis=0))


def grown(
    found: Mapping[str, pd.DataFrame],
    reference: str = REFERENCE,
    seed: int = 0,
    allowed: Callable[[tuple[str, ...]], bool] = lambda members: True,  # noqa: ARG005
) -> tuple[str, ...]:
    """The members of the ensemble that the evidence asks for, the first one alone where none is asked for.

    The first is what ``by_evidence`` takes of the detectors. Then the one whose company is worth most joins, as long as
    the mean with it is better for certain than the mean without it. What is not *allowed* is not looked at.
    """
    first = by_evidence(found, reference, seed).detector
    members, table = [first], found[first]
    same = {name for name, other in found.items() if other[PICTURES].equals(table[PICTURES])}
    while len(members) < MOST:
        others = [name for name in sorted(same - set(members)) if allowed((*members, name))]
        if not others:
            break
        means = {name: averaged([found[member] for member in (*members, name)]) for name in others}
        best = max(others, key=lambda name: worth(means[name]))
        if share_better(means[best], table, seed) < CERTAIN:
            break
        members.append(best)
        table = means[best]
    return tuple(members)


def _by_history(candidates: Mapping[str, Path]) -> Choice:
    worths = {name: synthetic_score(at) for name, at in candidates.items()}
    best = max(sorted(worths), key=lambda name: worths[name])
    return Choice(
        best, worths, tuple(f"{n}: image AUROC on synthetic anomalies {s:.4f}" for n, s in sorted(worths.items()))
    )


def synthetic_score(at: Path) -> float:
    """AUROC on synthetic anomalies of the model that the training at *at* ended with."""
    return kept_score(read_json(at / "model" / "history.json")) or 0.0
