"""What the pages need of rooms above the service, given to it when it starts: verdicts, and another threshold."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DECISIONS = "decisions"  # where the store keeps those on a bundle folder; a registry keeps its own


def _none(*_: str) -> Sequence[Mapping[str, Any]]:
    return ()


@dataclass(frozen=True)
class Desk:
    """*verdicts*: those of a source and a model version, oldest first, as mappings with the fields of ``Verdict``.

    *repoint* moves the operating point of what is served to an alpha, for reasons, and returns the decision record;
    None where the service was started without it. It raises errors of core.errors.
    """

    verdicts: Callable[[str, str], Sequence[Mapping[str, Any]]] = _none
    repoint: Callable[[float, tuple[str, ...]], Mapping[str, Any]] | None = None
