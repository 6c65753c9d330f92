"""The knobs of the operating point."""

from dataclasses import dataclass

from components.core.errors import SettingsError

SMALLEST = 1e-6  # a smaller alpha would need more than a million good pictures


@dataclass(frozen=True)
class CalibrationSettings:
    """*alpha* is the false-alarm rate asked for on normal images; *confidence* that of the interval around it.

    *folds* 0: the calibrate side of the split sets the threshold; K: every good picture does, by K more trainings.
    None: 0 where that side has enough pictures for alpha, otherwise five.
    """

    alpha: float = 0.05
    confidence: float = 0.95
    folds: int | None = None

    def __post_init__(self) -> None:
        for name, value in (("alpha", self.alpha), ("confidence", self.confidence)):
            if not 0 < value < 1:  # not a number fails too
                raise SettingsError(f"calibration.{name} is {value}; give a number between 0 and 1, without these")
        if self.alpha < SMALLEST:
            raise SettingsError(f"calibration.alpha is {self.alpha:g}; give at least {SMALLEST:g}")
        if self.folds is not None and (self.folds < 0 or self.folds == 1):
            raise SettingsError(f"calibration.folds is {self.folds}; give 0, a number from 2 on, or null to decide it")


@dataclass(frozen=True)
class CascadeSettings:
    """*normal* is the edge graph's p-value from which an image is normal at once: 0.5 lets half of the normals out.

    *share* of alpha is the edge graph's to call an image anomalous at once; 0: it only ever says normal. Of the
    synthetic anomalies that the full graph finds at most the share *missed* may leave as normal; 1: any number.
    """

    normal: float = 0.5
    share: float = 0.2
    missed: float = 0.05

    def __post_init__(self) -> None:
        if not (0 < self.normal <= 1 and 0 <= self.share <= 0.5 and 0 <= self.missed <= 1):
            raise SettingsError(
                f"export.cascade: normal is {self.normal}, share {self.share}, missed {self.missed}; give normal in "
                "(0, 1], share in [0, 0.5] and missed in [0, 1]"
            )
