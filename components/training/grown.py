"""The running state of a first closed-form phase, kept beside a finished model: a fit of more pictures goes on from it.

Only where the pictures in it come first again, the same ones in the same order. Then the model is what a fit from the
first picture on makes, bit for bit: what a model is never depends on what was fitted before it (docs/adr/0030).
"""

import logging
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from components.training.checkpoint import Checkpoint

log = logging.getLogger("loupe")


class Grown:
    """The state in *checkpoint*, whose fingerprint is of all but the pictures; *pictures* are those of this fit, or
    their squares where they are cut, each by its identity, in order."""

    def __init__(self, checkpoint: Checkpoint, pictures: Sequence[str]) -> None:
        self.checkpoint, self.pictures = checkpoint, list(pictures)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and position as those of ``Checkpoint``, or None where there is no state of the first pictures."""
        if not (found := self.checkpoint.load()):
            return None
        tensors, position = found
        known = position.pop("pictures")
        if known != self.pictures[: len(known)]:
            log.info("the state of an earlier fit is not of the first of these pictures; it is not gone on from")
            return None
        log.info("%d of %d pictures are in the state of an earlier fit", len(known), len(self.pictures))
        return tensors, position

    def save(self, tensors: dict[str, Tensor], step: int) -> None:
        """Keep *tensors*, the state behind the first *step* pictures, for a fit of more."""
        place = {"phase": 0, "epoch": 0, "step": step, "history": [], "best": None}
        self.checkpoint.save(tensors, {**place, "pictures": self.pictures[:step]})
