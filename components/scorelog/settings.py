"""The knobs of the score log in the object store."""

from dataclasses import dataclass

from components.core.errors import SettingsError


@dataclass(frozen=True)
class ScoreLogSettings:
    """*keep_days*: older score records go, and pictures that nobody else names; None keeps all. Labels always stay."""

    keep_days: int | None = None
    rows: int = 5_000  # of an object that compaction writes: what a reader opens at once

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise SettingsError(f"scorelog.rows is {self.rows}; give 1 or more")
        if self.keep_days is not None and self.keep_days < 1:
            raise SettingsError(f"scorelog.keep_days is {self.keep_days}; give 1 or more, or null to keep all")
