"""Pictures scored as production would, and the monitor's verdicts on a stream of such scores; no store, no files."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from components.core.progress import progress
from components.decision.batch import entry
from components.decision.bundle import Bundle
from components.monitoring.bounds import bounds, distances
from components.monitoring.columns import frame, read_reference, standardised
from components.monitoring.settings import MonitorSettings
from components.monitoring.verdict import Verdict, decide, drifted
from components.pictures.decoding import decode

START = datetime(2026, 1, 1, tzinfo=UTC)
Change = Callable[[np.ndarray], np.ndarray]


def scored(folder: Path, images: Iterable[Path], said: str, change: Change | None = None) -> pd.DataFrame:
    """The monitored columns of each picture, (N, 21), in standard deviations of the bundle's reference."""
    bundle, records = Bundle.open(folder), []
    for path in progress(list(images), said):
        picture = decode(path, rules=bundle.decoding)
        picture = change(picture) if change else picture
        scores, _, embeddings = bundle.score([picture])
        records.append(entry(bundle, picture, float(scores[0]), embeddings[0]))
    return standardised(frame(records), read_reference(folder))


@dataclass(frozen=True)
class Window:
    """The verdict after *end* records; *excess* is the farthest column's distance over its limit."""

    end: int
    flagged: bool
    excess: float
    action: str
    reasons: tuple[str, ...]


class Watch:
    """The monitor's rules on one source; limits are computed once per window size."""

    def __init__(self, reference: pd.DataFrame, settings: MonitorSettings) -> None:
        self.reference, self.settings = reference, settings
        self.limits: dict[int, dict[str, float]] = {}

    def judge(self, window: pd.DataFrame) -> tuple[list[str], float]:
        """The drifted columns, in words, and the largest distance over its limit."""
        n = len(window)
        if n not in self.limits:
            self.limits[n] = bounds(self.reference, n, self.settings).limits
        found = distances(self.reference.to_numpy(), window.to_numpy())
        values = dict(zip(window.columns, map(float, found), strict=True))
        return drifted(values, self.limits[n]), max(v / self.limits[n][c] for c, v in values.items())

    def stream(self, records: pd.DataFrame) -> Iterator[Window]:
        """Verdicts in the order in which the windows fill; one hour between them, so that cooldown counts windows."""
        earlier: list[Verdict] = []
        for end in range(self.settings.stride, len(records) + 1, self.settings.stride):
            window = records.iloc[max(0, end - self.settings.window) : end]
            if len(window) < self.settings.min_n:
                continue
            (reasons, excess), at = self.judge(window), START + timedelta(hours=len(earlier))
            action, said = decide(reasons, earlier, self.settings, at)
            earlier.append(_verdict(action, bool(reasons), at))
            yield Window(end, bool(reasons), excess, action, said)


def _verdict(action: str, flagged: bool, at: datetime) -> Verdict:
    empty = Verdict("keep", "", "", "", "", 0, flagged, (), {}, {}, "", {}, at.isoformat())
    return replace(empty, action=action)  # type: ignore[arg-type]
