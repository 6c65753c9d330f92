"""A flow that stops on an error of ours ends with its sentence, without a traceback above it."""

import logging
import sys

from components.core.errors import DataError
from flows.terminal import OneSentence


def record(error: Exception) -> logging.LogRecord:
    try:
        raise error
    except (DataError, ValueError):
        return logging.LogRecord("prefect", logging.ERROR, __file__, 1, "failed", None, sys.exc_info())


def test_our_errors_lose_their_traceback_and_others_keep_it():
    ours, foreign = record(DataError("data/x: not found")), record(ValueError("a mistake of ours"))
    assert OneSentence().filter(ours)
    assert OneSentence().filter(foreign)
    assert ours.exc_info is None
    assert foreign.exc_info is not None


def test_in_a_command_no_traceback_is_shown():
    foreign = record(ValueError("a mistake of ours"))
    assert OneSentence(all_errors=True).filter(foreign)
    assert foreign.exc_info is None
