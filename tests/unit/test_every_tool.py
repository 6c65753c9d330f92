"""A test that is skipped for want of a tool fails where all tools are to be there."""

from types import SimpleNamespace

import pytest

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
