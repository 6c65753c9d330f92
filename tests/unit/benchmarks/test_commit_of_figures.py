"""Which commit a figure is of."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.common.results import commit


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository of one commit with a source and a file of results."""
    monkeypatch.chdir(tmp_path)
    for name in ("components/loop.py", "benchmarks/results/fit.json", "docs/page.md"):
        Path(name).parent.mkdir(parents=True)
        Path(name).write_text("1")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *words], check=True)
    return subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()


def test_what_benchmarks_write_is_no_change(checkout):
    assert commit() == checkout
    Path("benchmarks/results/fit.json").write_text("2")
    Path("docs/page.md").write_text("2")
    assert commit() == checkout


def test_a_changed_source_is_told(checkout):
    Path("components/loop.py").write_text("2")
    assert commit() == f"{checkout}+"
