"""One candidate that fails is no end of the others."""

import pytest

from components.core.errors import DataError, ParityError, StageError
from flows.failures import noted


def test_what_one_candidate_fails_with_is_noted_and_told(caplog):
    failed: dict[str, str] = {}
    for name, error in (("a", StageError("was killed")), ("b", ParityError("maps differ")), ("c", None)):
        with noted(failed, name):
            if error:
                raise error
    assert failed == {"a": "was killed", "b": "maps differ"}
    assert "a failed and is left out, the others go on: was killed" in caplog.text


@pytest.mark.parametrize("error", [DataError("no pictures"), KeyboardInterrupt(), ZeroDivisionError()])
def test_what_is_no_fault_of_a_candidate_ends_all(error):
    failed: dict[str, str] = {}
    with pytest.raises(type(error)), noted(failed, "a"):
        raise error
    assert failed == {}
