"""What a run trains besides single detectors: the ensemble that the evidence asks for, within time and latency."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from components.pipeline.sizing import Sized, reference_of
from components.pipeline.stages import JOINT, Stages
from components.registry.choice import evidence_of, grown

log = logging.getLogger("loupe")


def company(stages: Stages, found: Sequence[Sized], latency_ms: float | None = None) -> str | None:
    """The name of the ensemble of trained detectors that is better for certain than the best alone, if there is one.

    A detector of several sizes is one member. What takes longer than *latency_ms* for one picture is not looked at.
    """
    by_name = {sized.name: sized for sized in found}
    members = grown(
        evidence_of({name: stages.of(name) for name in by_name}),
        reference_of(found),
        stages.params.seed,
        lambda names: latency_ms is None or _ms(by_name, names) <= latency_ms,
    )
    if len(members) == 1:
        log.info("%s: no ensemble is better than %s for certain", stages.folder, *members)
        return None
    log.info("%s: %s are better together for certain", stages.folder, ", ".join(members))
    return JOINT.join(members)


def _ms(found: Mapping[str, Sized], names: Sequence[str]) -> float:
    return sum(found[name].ms for name in names)


@dataclass
class Time:
    """How long a run may take: a detector begins only where it would still end in time.

    *foreseen* are the seconds of its training. What comes on top of it, export, evaluation and a slow day of the
    machine, is the most that came on top of one so far; of one that is not done yet what it has taken so far counts.
    """

    minutes: float | None
    clock: Callable[[], float] = time.monotonic
    foreseen: Callable[[str], float] = lambda _: 0.0
    start: float = field(init=False)
    begun: dict[str, float] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start = self.clock()

    def room(self, name: str) -> bool:
        """Whether *name* may begin; one that may has begun. The first always may."""
        now = self.clock()
        if name in self.begun:
            return True
        if self.begun and self.minutes is not None and now - self.start + self._takes(name, now) > 60 * self.minutes:
            return False
        self.begun[name] = now
        return True

    def _takes(self, name: str, now: float) -> float:
        """Seconds that *name* would take, from its beginning to its end."""
        on_top = [self.took.get(other, now - at) - self.foreseen(other) for other, at in self.begun.items()]
        return self.foreseen(name) + max(0.0, *on_top)

    def done(self, name: str) -> None:
        """*name* is trained, evaluated and exported."""
        self.took[name] = self.clock() - self.begun[name]
