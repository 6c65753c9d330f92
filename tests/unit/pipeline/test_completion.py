"""`loupe --install-completion`: a shell knows commands, options and detectors."""

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("typed", "offered"), [("fit pad", {"padim"}), ("cal", {"calibrate"}), ("score --over", {"--overlays"})]
)
def test_a_shell_completes_commands_options_and_detectors(typed, offered):
    words = f"loupe {typed}"
    asked = {"_LOUPE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    command = [sys.executable, "-m", "components.cli"]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True)
    assert set(done.stdout.split()) == offered, done.stderr


def test_completion_installs_itself_for_the_shell_that_asks(tmp_path):
    """As `loupe --install-completion` in bash; it is shellingham that finds out which shell that is."""
    (tmp_path / ".bashrc").touch()
    python = f'"{sys.executable}" -m components.cli --install-completion; true'  # true: bash stays the parent
    environment = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(Path.cwd())}
    done = subprocess.run(["bash", "-c", python], env=environment, capture_output=True, text=True)
    assert "bash completion installed" in done.stdout, done.stderr
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_LOUPE_COMPLETE=complete_bash" in script.read_text()
    assert script.name in (tmp_path / ".bashrc").read_text()


def test_the_script_is_shown_to_who_keeps_it_by_hand():
    command = f'"{sys.executable}" -m components.cli --show-completion; true'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert "_LOUPE_COMPLETE=complete_bash loupe" in done.stdout.replace("$1", "loupe"), done.stderr
