"""`make setup` says what it does, how much that is and what comes next, and fails as pip does. Without a network."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PYTHON = """#!/bin/sh
[ "$1" = --version ] && { echo Python 3.11.99; exit; }
mkdir -p "$3/bin"
printf '#!/bin/sh\\necho "pip $*"; echo "Downloading torch (800 MB)"; exit ${PIP_STATUS:-0}\\n' > "$3/bin/pip"
printf '#!/bin/sh\\necho "python $*"; exit 1\\n' > "$3/bin/python"
chmod +x "$3/bin/pip" "$3/bin/python"
"""


@pytest.fixture
def checkout(tmp_path):
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(PROJECT / name, tmp_path)
    (tmp_path / "components").mkdir()
    shutil.copy(PROJECT / "components/environment.env", tmp_path / "components")
    (tmp_path / "python3").write_text(PYTHON)
    (tmp_path / "python3").chmod(0o755)
    return tmp_path


def make(checkout: Path, *words: str, **more: str) -> subprocess.CompletedProcess:
    known = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # one above speaks
    environment = {**known, **more, "PATH": f"{checkout}{os.pathsep}{os.environ['PATH']}"}
    command = ["make", "PYTHON=python3", *words]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)


def test_the_set_up_is_not_silent(checkout):
    done = make(checkout, "setup")
    assert done.returncode == 0, done.stderr
    for said in ("setup 1 of 3", "Python 3.11.99", "setup 2 of 3", "packages", "8 GB", "Downloading torch (800 MB)"):
        assert said in done.stdout, said
    assert "--quiet" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith("Next: . .venv/bin/activate, then loupe doctor")
    assert "setup 1" not in make(checkout, "setup").stdout  # it is done once


def test_what_pip_leaves_uncompiled_is_compiled_on_all_cores(checkout):
    """A file among them that cannot be compiled, as its exit status says, is no reason to fail."""
    said = make(checkout, "setup").stdout
    assert "--no-compile" in said
    assert "python -m compileall -qq -j 0 .venv/lib" in said


def test_a_set_up_that_failed_is_not_taken_for_done(checkout):
    done = make(checkout, "setup", PIP_STATUS="1")
    assert done.returncode != 0
    assert "setup done" not in done.stdout
    assert "setup 1 of 3" in make(checkout, "setup").stdout


def test_a_disk_that_is_too_small_is_told_before_anything_is_loaded(checkout):
    """Of 9 GB that are free, and of the same 9 beside packages that are there already."""
    (checkout / "df").write_text("#!/bin/sh\necho head\necho disk 0 0 9200000 95% /\n")
    (checkout / "df").chmod(0o755)
    done = make(checkout, "setup")
    assert done.returncode != 0
    assert f"setup: 9 GB are free on the disk of {checkout}, where 10 are asked for" in done.stdout
    assert "\t" not in done.stdout
    assert not (checkout / ".venv").exists()
    (checkout / "du").write_text("#!/bin/sh\nprintf '1500000\\t.venv\\n'\n")
    (checkout / "du").chmod(0o755)
    assert make(checkout, "setup").returncode == 0


def test_help_lists_every_target(checkout):
    said = make(checkout, "help").stdout.splitlines()
    targets = {line.split(":")[0] for line in (checkout / "Makefile").read_text().splitlines() if ":  ##" in line}
    assert {line.split()[0] for line in said} >= {"setup", "pipeline", "test", "check"}
    assert targets <= {line.split()[0] for line in said}
