"""Long work is told in the log where there is no terminal, and what is told can be printed anywhere."""

import logging

import pytest

from components.core import progress as told
from components.core.progress import progress, show_logs


@pytest.fixture
def clock(monkeypatch):
    """Ten seconds go by from one look to the next."""
    looks = iter(range(0, 10_000, 10))
    monkeypatch.setattr(told.time, "monotonic", lambda: float(next(looks)))
    monkeypatch.setattr(told.sys.stderr, "isatty", lambda: False, raising=False)


@pytest.mark.usefixtures("clock")
def test_lines_say_how_many_are_done_and_how_long_the_rest_takes(caplog):
    with caplog.at_level("INFO", "loupe"):
        assert list(progress([7, 8, 9, 10, 11], "reading")) == [7, 8, 9, 10, 11]
    assert caplog.messages == ["reading: 1 of 5, 80 s left", "reading: 3 of 5, 27 s left"]


@pytest.mark.usefixtures("clock")
def test_where_nobody_knows_the_number_only_the_done_are_told(caplog):
    with caplog.at_level("INFO", "loupe"):
        assert list(progress(iter("abc"), "reading")) == ["a", "b", "c"]
    assert caplog.messages == ["reading: 1 of ?"]


def test_bytes_that_are_no_text_are_logged_as_escapes(caplog):
    with caplog.at_level("INFO", "loupe"):
        told.log.info("%s: read", b"a\xff.png".decode("utf-8", "surrogateescape"))
    assert caplog.messages == [r"a\xff.png: read"]


def test_logs_go_to_standard_error_once_however_often_it_is_asked(capsys):
    show_logs()
    show_logs(logging.WARNING)
    told.log.info("not asked for")
    told.log.warning("once")
    said = capsys.readouterr().err
    assert said.count("once") == 1
    assert "not asked for" not in said
