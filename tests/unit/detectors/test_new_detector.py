"""The newcomer's path: what CONTRIBUTING.md tells them to type, in a copy of the project."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from components.core.errors import SettingsError
from components.detectors.skeleton import new_detector

PARTS = ("benchmarks", "components", "docs", "flows", "tests")
FILES = ("CONTRIBUTING.md", "Makefile", "README.md", "params.yaml", "pyproject.toml", "requirements.lock")
BIN = Path(sys.executable).parent


@pytest.fixture
def project(tmp_path) -> Path:
    for part in PARTS:
        shutil.copytree(part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy2(file, tmp_path / file)
    return tmp_path


def run(command: str, project: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(project), "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(command, shell=True, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
def test_the_commands_of_contributing_end_green(project):
    text = (project / "CONTRIBUTING.md").read_text()
    path = re.search(r"(?:^    .*spade.*\n|^    loupe bench methods\n)+", text, re.MULTILINE)
    commands = [line.strip() for line in path[0].splitlines()]
    assert [c.split()[0] for c in commands] == ["loupe", "make", "make", "loupe", "pytest"]
    # With what the whole suite asks of a method beside its own contract: a process less to start.
    assert commands[-1].endswith(" -k spade")
    others = "tests/unit/test_documents.py -k 'spade or every_method or preset'"
    commands[-1] = commands[-1].replace("-k spade", others)
    for command in commands:
        said = run(command.replace("make ", f"make -o .venv/.ready BIN={BIN} "), project)
    assert " passed" in said
    assert "skipped" not in said.replace("2 skipped", "")  # the two that need a GPU
    assert "[Spade](docs/methods/spade.md)" in (project / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "said"),
    [("SpaDe", "a letter first"), ("patchcore", "in the catalogue already"), ("../x", "a letter first")],
)
def test_a_name_that_cannot_be_is_refused(name, said, project):
    with pytest.raises(SettingsError, match=said):
        new_detector(name, project, 2026)


def test_nothing_of_a_user_is_overwritten(project, tmp_path_factory):
    (project / "docs/methods/spade.md").write_text("mine")
    with pytest.raises(SettingsError, match="exists already"):
        new_detector("spade", project, 2026)
    assert not (project / "components/detectors/methods/spade.py").exists()
    with pytest.raises(SettingsError, match="no checkout"):
        new_detector("spade", tmp_path_factory.mktemp("empty"), 2026)
