"""A candidate that fails is left out and the others go on: a night's work is not lost for it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from components.core.errors import ParityError, StageError

log = logging.getLogger("loupe")
OF_ONE = (StageError, ParityError)  # what one detector fails with, and no other for it


@contextmanager
def noted(failed: dict[str, str], candidate: str) -> Iterator[None]:
    """Within, *candidate* is made; why it could not comes to *failed*."""
    try:
        yield
    except OF_ONE as error:
        failed[candidate] = str(error)
        log.warning("%s failed and is left out, the others go on: %s", candidate, error)
