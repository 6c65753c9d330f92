"""The knobs of the drift monitor."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MonitorSettings:
    """A window is the last *window* records of a source, judged after every *stride* new ones.

    One window is flagged by chance with a probability of about *false_alarm*; *needed* of the last *memory* windows
    must be flagged to ask for retraining.
    """

    window: int = 100
    stride: int = 50
    min_n: int = 50
    false_alarm: float = 0.01
    resamples: int = 500
    min_effect: float = 0.1  # normed Wasserstein below this is never called drift, however many images say so
    needed: int = 2
    memory: int = 3
    cooldown_hours: float = 24.0  # after a verdict that asked for retraining
    again_hours: float = 6.0  # until an event that led to no decision is sent again; to be longer than a retraining
    again: int = 3  # times
    late_days: float = 7.0  # how late records may reach the store where nothing of their model has come since
    settle_seconds: float = 10.0  # younger records wait for the next run: others of their time may still be shipped
    workspace: str = "monitoring/workspace"  # the Evidently dashboard's folder
    seed: int = 0
