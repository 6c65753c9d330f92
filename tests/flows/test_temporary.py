"""What is loaded while the temporary server of a flow starts."""

import sys
from importlib.util import find_spec

import pytest

from flows.temporary import STAGES, in_time


@pytest.fixture
def module(tmp_path, monkeypatch):
    """The name of a module that nothing has loaded."""
    (tmp_path / "loaded_meanwhile.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    yield "loaded_meanwhile"
    sys.modules.pop("loaded_meanwhile", None)


def test_when_the_server_answers_all_is_loaded(module):
    answered = []
    in_time(lambda *given: answered.append(given), [module])("server", 7)
    assert answered == [("server", 7)]
    assert module in sys.modules


def test_a_module_that_cannot_be_loaded_is_left_to_who_needs_it(module):
    in_time(lambda *_: None, ["no_such_module", module])("server")
    assert module in sys.modules


@pytest.mark.parametrize("name", STAGES)
def test_what_stages_load_is_there(name):
    """Loading keeps its errors to itself, so a module that was renamed would never be missed."""
    assert find_spec(name)
