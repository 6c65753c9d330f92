"""`make check` reads advisories where there is a network, and says so where there is none."""

import subprocess
import urllib.error
from pathlib import Path

from tests import advisories

WEAK = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": ["2.0"]}
ANSWER = {
    "dependencies": [{"name": "a", "version": "1.0", "vulns": [WEAK]}, {"name": "b", "version": "1", "vulns": []}]
}


def test_a_weakness_fails_and_names_the_package_and_the_version_that_mends_it(monkeypatch, capsys):
    monkeypatch.setattr(advisories, "reachable", lambda: True)
    monkeypatch.setattr(advisories, "audited", lambda: ANSWER)
    assert advisories.main() == 1
    assert "a 1.0: PYSEC-2026-1, mended in 2.0" in capsys.readouterr().out
    monkeypatch.setattr(advisories, "ACCEPTED", {"CVE-2026-1": "a is not used for that"})
    assert advisories.main() == 0


def test_without_a_network_one_sentence_says_so(monkeypatch, capsys):
    def away(*_, **__):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(advisories.urllib.request, "urlopen", away)
    assert advisories.main() == 0
    assert capsys.readouterr().out.startswith("no advisories were read: PyPI does not answer")


def test_an_answer_that_is_none_is_no_weakness(monkeypatch, capsys):
    def silent(*_, **__):
        return subprocess.CompletedProcess([], 1, "", "could not connect")

    monkeypatch.setattr(advisories, "reachable", lambda: True)
    monkeypatch.setattr(advisories.subprocess, "run", silent)
    assert advisories.main() == 0
    assert "no advisories were read" in capsys.readouterr().out


def test_make_check_asks():
    assert "python -m tests.advisories" in Path("Makefile").read_text()
    assert '"pip-audit' in Path("pyproject.toml").read_text()
