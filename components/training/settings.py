"""The knobs of training."""

from dataclasses import dataclass, field
from typing import Any, Literal

from components.core.cache import AUTO
from components.core.checks import check_budget, check_known, check_training
from components.core.errors import SettingsError
from components.detectors.catalogue import check_detector, parted, settings_for, size_in

# Of the square, all but the one that changes nothing: turns against the clock, mirrors (docs/pose.md).
MOVES = ("turn_90", "turn_180", "turn_270", "left_right", "top_bottom", "diagonal", "antidiagonal")


@dataclass(frozen=True)
class TrainSettings:
    """How to train; *detectors* holds settings of each by (dotted) name, on top of the preset.

    Those of ``patchcore`` hold for all its sizes, those of ``patchcore@384`` come on top for that one.
    """

    preset: str = "cpu"
    precision: str = "32-true"
    checkpoint_every: float = 20.0  # seconds
    # The user's cache folder (`loupe cache`), or a folder; None: features are computed at every draw and not kept.
    store: str | None = AUTO
    store_limit_gb: float = 20.0
    # Turned and mirrored good pictures as extra rows (docs/pose.md): by those moves that are measured to be as normal,
    # by none, or by some named ones, unmeasured.
    moves: tuple[str, ...] | Literal["auto", "none"] = "auto"
    # How many GPUs, or processes where there is none, one training is divided among (docs/gpu.md).
    devices: int = 1
    stage_seconds: float = 7200.0  # a stage of a flow that takes longer is killed
    # The most that one training by gradients may take: its epochs are cut to what fits, measured by a few steps.
    minutes: float | None = None
    # What happens where a training is predicted to need more memory than there is (docs/training.md).
    memory: Literal["refuse", "warn"] = "refuse"
    detectors: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_training(self.precision, self.checkpoint_every, self.store_limit_gb, self.devices)
        check_budget("train.minutes", self.minutes)
        for name in self.detectors:
            check_detector(name, "train.detectors")
            size, other = parted(name)[1], size_in(self.detectors[name])
            if size and other not in (None, size):
                raise SettingsError(
                    f"train.detectors.{name}: its size is {size} by its name and {other} by its settings; leave one out"
                )
        for move in self.moves if isinstance(self.moves, tuple) else ():
            check_known(move, MOVES, "train.moves")

    def overrides(self, name: str) -> tuple[dict[str, Any], ...]:
        """The settings of a detector on top of the preset: of all its sizes, then of the one in *name*."""
        return tuple(self.detectors.get(part, {}) for part in dict.fromkeys((parted(name)[0], name)))

    def method(self, name: str) -> Any:
        """The settings that detector *name* is trained with. Raises SettingsError."""
        return settings_for(name, self.preset, *self.overrides(name))
