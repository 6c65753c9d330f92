"""Flows that a command runs: the terminal shows one sentence of an error, as it does of every other command."""

import logging
import os

from components.core.boundary import DEBUG
from components.core.errors import LoupeError


class OneSentence(logging.Filter):
    """Our own errors are one sentence; Prefect's traceback above it would only hide that.

    With *all_errors* the others lose theirs too: the command line writes it to a file.
    """

    def __init__(self, all_errors: bool = False) -> None:
        super().__init__()
        self.all_errors = all_errors

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and (self.all_errors or isinstance(record.exc_info[1], LoupeError)):
            record.exc_info, record.exc_text = None, None
        return True


def without_tracebacks() -> None:
    """Call before a flow that runs in the process of a command; with --debug tracebacks stay."""
    if os.environ.get(DEBUG):
        return
    for name in ("prefect", "prefect.flow_runs", "prefect.task_runs"):
        for handler in logging.getLogger(name).handlers:
            handler.addFilter(OneSentence(all_errors=True))
