"""The gate: whether a challenger takes the champion's place. Pure; every check is said in words, passed or not."""

from dataclasses import dataclass
from typing import Literal

from components.decision.conformal import needed
from components.registry.settings import GateSettings


@dataclass(frozen=True)
class Figures:
    """One model on the pictures of the comparison; shares of alarms, milliseconds, parity error over its tolerance."""

    synthetic_auroc: float
    synthetic_recall: float
    frozen_alarms: float
    frozen: int
    window_alarms: float
    window: int
    reviewed_recall: float
    reviewed: int
    latency_ms: float
    parity_error: float
    alpha: float
    calibration_n: int


@dataclass(frozen=True)
class Gate:
    """The outcome; *reasons* names every check, the failed ones first."""

    action: Literal["promote", "refuse"]
    reasons: tuple[str, ...]


def gate(champion: Figures, challenger: Figures, contamination: float, settings: GateSettings) -> Gate:
    """Promote when every check holds."""
    checks = [*_quality(champion, challenger, settings), *_conditions(champion, challenger, contamination, settings)]
    failed = tuple(f"failed: {said}" for held, said in checks if not held)
    passed = tuple(f"passed: {said}" for held, said in checks if held)
    return Gate("refuse" if failed else "promote", failed + passed)


def _quality(old: Figures, new: Figures, s: GateSettings) -> list[tuple[bool, str]]:
    bound = new.alpha + s.frozen_margin * (new.alpha * (1 - new.alpha) / max(1, new.frozen)) ** 0.5
    checks = [
        (
            new.synthetic_auroc >= old.synthetic_auroc - s.auroc_loss,
            f"synthetic AUROC {new.synthetic_auroc:.3f}, champion {old.synthetic_auroc:.3f}",
        ),
        (
            new.synthetic_recall >= old.synthetic_recall - s.recall_loss,
            f"recall of synthetic anomalies {new.synthetic_recall:.3f}, champion {old.synthetic_recall:.3f}",
        ),
        (
            new.frozen_alarms <= bound,
            f"false alarms on {new.frozen} frozen normals {new.frozen_alarms:.3f}, limit {bound:.3f}",
        ),
        (
            new.window_alarms < old.window_alarms,
            f"alarms on {new.window} held-out images of the drifted window {new.window_alarms:.3f}, "
            f"champion {old.window_alarms:.3f}",
        ),
        (
            new.window_alarms <= new.alpha + s.max_contamination,
            f"alarms on the drifted window {new.window_alarms:.3f}, limit {new.alpha + s.max_contamination:.3f}: "
            "alpha and the share of defects that a pool may hold",
        ),
    ]
    if new.reviewed:
        held = new.reviewed_recall >= old.reviewed_recall - s.recall_loss
        said = (
            f"recall of {new.reviewed} reviewed defects {new.reviewed_recall:.3f}, champion {old.reviewed_recall:.3f}"
        )
        checks.append((held, said))
    return checks


def _conditions(old: Figures, new: Figures, contamination: float, s: GateSettings) -> list[tuple[bool, str]]:
    budget = min(s.latency_ms, max(s.latency_factor * old.latency_ms, 1.0))
    return [
        (
            contamination <= s.max_contamination,
            f"estimated share of defects among the candidates {contamination:.3f}, limit {s.max_contamination:g}",
        ),
        (new.parity_error <= 1, f"parity error {new.parity_error:.2g} of its tolerance"),
        (new.latency_ms <= budget, f"latency {new.latency_ms:.0f} ms, budget {budget:.0f} ms"),
        (
            new.calibration_n >= needed(new.alpha),
            f"calibrated on {new.calibration_n} normals, {needed(new.alpha)} needed for alpha {new.alpha:g}",
        ),
    ]
