"""The knobs of batch scoring."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InboxSettings:
    """When a file is taken, and when it is given up."""

    settle_seconds: float = 2.0  # a file that changed since then is still being written
    attempts: int = 3  # runs that try a file before it goes to quarantine
