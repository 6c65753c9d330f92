"""The knobs of retraining."""

from dataclasses import dataclass

from components.registry.settings import GateSettings


@dataclass(frozen=True)
class RetrainSettings:
    """*detectors* are the challengers. Trimming and the estimate of contamination: docs/retraining.md."""

    detectors: tuple[str, ...] = ("patchcore",)
    size: str | int | tuple[int, ...] = "auto"  # of their pictures, as pipeline.size: docs/sizes.md
    min_candidates: int = 80
    max_candidates: int = 2000  # the newest ones
    holdout_share: float = 0.2  # of the candidates; never trained on, the drifted window of the comparison
    trim_at: float = 3.5  # deviations of the pool's lower half beyond which a candidate is left out
    clean_tail: float = 0.03  # share beyond trim_at that clean pools show too
    contamination_bank: int = 1000  # patches of the memory banks that score the pool
    per_day: int = 4  # retrainings of one model in 24 hours
    gate: GateSettings = GateSettings()
