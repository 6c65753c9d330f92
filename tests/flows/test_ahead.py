"""One training ahead of what comes behind them: order, errors, and that none is left behind."""

import contextvars
import subprocess
import sys
import threading
import time

import pytest

from components.core.errors import StageError
from components.pipeline import isolated
from flows import ahead as ahead_module
from flows.ahead import Ahead

WITHIN = 20.0  # seconds until a thread that never comes fails a test


class Trainings:
    """Notes which trainings begin; those of *held* wait until they are let go."""

    def __init__(self, held=()):
        self.begun, self.let = [], {name: threading.Event() for name in held}
        self.started = {name: threading.Event() for name in "abc"}

    def __call__(self, name):
        self.begun.append(name)
        self.started[name].set()
        if name in self.let:
            assert self.let[name].wait(WITHIN)


def test_the_next_is_trained_while_what_comes_behind_one_is_done():
    train = Trainings(held="b")
    with Ahead("abc", train, lambda _: True) as ahead:
        ahead.trained("a")
        assert train.started["b"].wait(WITHIN)  # and we are behind a: its export would run here
        assert train.begun == ["a", "b"]
        train.let["b"].set()
        ahead.trained("b")
        ahead.trained("c")
    assert train.begun == ["a", "b", "c"]  # each once


def test_one_training_runs_at_a_time():
    train = Trainings(held="b")
    with Ahead("abc", train, lambda _: True) as ahead:
        ahead.trained("a")
        assert train.started["b"].wait(WITHIN)
        assert not train.started["c"].wait(0.05)
        train.let["b"].set()


def test_none_begins_that_may_not():
    train = Trainings()
    with Ahead("abc", train, lambda name: name != "b") as ahead:
        ahead.trained("a")
        ahead.trained("c")
    assert train.begun == ["a", "c"]


def test_what_a_training_ahead_raised_is_raised_where_it_is_waited_for():
    def train(name):
        if name == "b":
            raise StageError("no memory")

    with Ahead("ab", train, lambda _: True) as ahead:
        ahead.trained("a")
        with pytest.raises(StageError, match="no memory"):
            ahead.trained("b")


def test_a_training_ahead_belongs_to_the_context_of_its_flow():
    flow, seen = contextvars.ContextVar("flow", default="none"), {}
    flow.set("train")
    with Ahead("ab", lambda name: seen.update({name: flow.get()}), lambda _: True) as ahead:
        ahead.trained("a")
        ahead.trained("b")
    assert seen == {"a": "train", "b": "train"}


def test_who_gives_up_waiting_ends_what_is_waited_for(monkeypatch):
    ended = []
    monkeypatch.setattr(ahead_module, "end_running", lambda: ended.append("all"))
    train = Trainings(held="b")

    def flow(ahead):
        with ahead:
            ahead.trained("a")
            assert train.started["b"].wait(WITHIN)
            monkeypatch.setattr(ahead.begun["b"], "result", interrupted)
            ahead.trained("b")

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flow(Ahead("ab", train, lambda _: True))
    assert ended == ["all"]
    train.let["b"].set()


def test_an_error_behind_a_training_ends_the_one_that_is_ahead(monkeypatch, tmp_path):
    """A stage of its own process that would run for an hour."""
    started, real = threading.Event(), subprocess.Popen

    def sleeping(_, **given):
        process = real([sys.executable, "-c", "import time; time.sleep(3600)"], **given)
        started.set()
        return process

    monkeypatch.setattr(isolated.subprocess, "Popen", sleeping)
    said = []

    def train(name):
        if name == "b":
            try:
                isolated.run_stage("train", "view", name, tmp_path, tmp_path, 3600)
            except StageError as error:
                said.append(str(error))
                raise

    def export():
        assert started.wait(WITHIN)
        end = time.monotonic() + WITHIN
        while not isolated._RUNNING and time.monotonic() < end:
            time.sleep(0.01)
        raise OSError("disk full")

    def flow(ahead):
        with ahead:
            ahead.trained("a")
            export()

    ahead = Ahead("ab", train, lambda _: True)
    with pytest.raises(OSError, match="disk full"):
        flow(ahead)
    with pytest.raises(StageError, match="was killed"):
        ahead.begun["b"].result(WITHIN)
    assert len(said) == 1
    assert not isolated._RUNNING
