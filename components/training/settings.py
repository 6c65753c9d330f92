"""The knobs of training."""

from dataclasses import dataclass, field
from typing import Any

from components.core.cache import AUTO
from components.core.checks import check_known, check_training
from components.detectors.catalogue import CATALOGUE


@dataclass(frozen=True)
class TrainSettings:
    """How to train; *detectors* holds settings of each by (dotted) name, on top of the preset."""

    preset: str = "cpu"
    precision: str = "32-true"
    checkpoint_every: float = 20.0  # seconds
    # The user's cache folder (`loupe cache`), or a folder; None: features are computed at every draw and not kept.
    store: str | None = AUTO
    store_limit_gb: float = 20.0
    stage_seconds: float = 7200.0  # a stage of a flow that takes longer is killed
    detectors: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_training(self.precision, self.checkpoint_every, self.store_limit_gb)
        for name in self.detectors:
            check_known(name, CATALOGUE, "train.detectors")
