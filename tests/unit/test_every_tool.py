"""What a run of all tests asks of the machine: its tools, and room on its disk."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from tests import conftest
from tests.conftest import EVERY_TOOL, judged


def skipped(reason):
    return SimpleNamespace(skipped=True, outcome="skipped", longrepr=("file.py", 3, f"Skipped: {reason}"))


@pytest.mark.parametrize("reason", ["needs Chromium, e.g. Debian's package chromium", "could not import 'av'"])
def test_a_missing_tool_fails_where_all_are_to_be_there(monkeypatch, reason):
    monkeypatch.delenv(EVERY_TOOL, raising=False)
    assert judged(skipped(reason)).outcome == "skipped"
    monkeypatch.setenv(EVERY_TOOL, "1")
    report = judged(skipped(reason))
    assert report.outcome == "failed"
    assert "install it, as .ci/run does" in report.longrepr


def test_what_a_machine_cannot_be_given_may_be_skipped(monkeypatch):
    monkeypatch.setenv(EVERY_TOOL, "1")
    for reason in ("no GPU", "mtd is not on this machine; docs/data.md says where it comes from"):
        assert judged(skipped(reason)).outcome == "skipped"


def whole_run(dist, **more):
    return SimpleNamespace(config=SimpleNamespace(getoption=lambda *_: dist, **more))


def test_all_tests_do_not_begin_on_a_full_disk(monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2.9e9))
    with pytest.raises(pytest.exit.Exception, match=r"2\.9 GB are free and the tests need 3; make room, or set TMPDIR"):
        conftest.pytest_sessionstart(whole_run("loadfile"))
    conftest.pytest_sessionstart(whole_run("no"))  # a few tests
    conftest.pytest_sessionstart(whole_run("loadfile", workerinput={}))  # one of the workers
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=3e9))
    assert conftest.lack_of_disk(Path("/")) == ""
