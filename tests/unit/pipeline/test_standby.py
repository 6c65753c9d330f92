"""A process that waits for a stage: what it loads, what it is told, and how it ends where nothing is."""

import io
import sys
from importlib.util import find_spec

import pytest

from components.pipeline import standby
from components.training import probe


@pytest.fixture
def told(monkeypatch, tmp_path):
    """What ``awaited`` makes of *line* at its standard input, with these *params*."""
    monkeypatch.setattr(standby, "LOADED", ())

    def ask(line, params="data: {}\nviews: {}\n"):
        (tmp_path / "params.yaml").write_text(params)
        monkeypatch.setattr(sys, "stdin", io.StringIO(line))
        return standby.awaited(tmp_path / "params.yaml")

    return ask


def test_it_runs_the_words_that_it_is_told(told, monkeypatch):
    monkeypatch.setattr(probe, "keep_graph", lambda *_: None)
    assert told('["train", "cells", "patchcore"]\n') == ["train", "cells", "patchcore"]


def test_it_ends_where_its_beginner_needs_no_stage(told):
    with pytest.raises(SystemExit) as end:
        told("", "nonsense: 1\n")
    assert not end.value.code


def test_what_is_wrong_with_the_settings_is_left_to_the_stage(told):
    assert told('["train"]\n', "nonsense: 1\n") == ["train"]


@pytest.mark.parametrize("name", standby.LOADED)
def test_what_it_loads_is_there(name):
    """Loading keeps its errors to itself, so a module that was renamed would never be missed."""
    assert find_spec(name)


def test_the_graph_of_the_probe_is_made_where_features_are_kept(told, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(probe, "keep_graph", lambda *given: asked.append(given))
    told("[]\n", f"data: {{}}\nviews: {{}}\ntrain: {{store: {tmp_path / 'kept'}, preset: tiny}}\n")
    told("[]\n", "data: {}\nviews: {}\ntrain: {store: null}\n")
    assert asked == [(tmp_path / "kept", "tiny")]
