"""A stage in a process of its own: it can be killed, and it says why it ended."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from components.core.errors import StageError
from components.pipeline import isolated

TALKS = "import sys, time; print('working', file=sys.stderr, flush=True); time.sleep({})"


@pytest.fixture
def stage(monkeypatch, tmp_path):
    """Let ``run_stage`` run *code* in place of a stage."""

    def begin(code, seconds):
        monkeypatch.setattr(isolated.sys, "executable", _interpreter(tmp_path, code))
        isolated.run_stage("train", "view", "patchcore", tmp_path / "params.yaml", tmp_path, seconds)

    return begin


def _interpreter(folder, code):
    script = folder / "python"
    script.write_text(f"#!{sys.executable}\n{code}\n")
    script.chmod(0o755)
    return str(script)


def test_a_stage_that_takes_too_long_is_killed(stage):
    began = time.monotonic()
    with pytest.raises(StageError, match="longer than 1 s and was killed"):
        stage(TALKS.format(60), 1)
    assert time.monotonic() - began < 20


def test_a_failing_stage_says_its_last_line(stage):
    with pytest.raises(StageError, match=r"train of patchcore on view: no disk \(exit status 3\)"):
        stage("import sys; print('no disk', file=sys.stderr); sys.exit(3)", 30)


def test_a_stage_that_was_killed_says_so(stage):
    with pytest.raises(StageError, match="was killed"):
        stage("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 30)


WAITS = """
import os, sys
with open({seen!r}, "a") as seen:
    print("begun", os.getpid(), *sys.argv[3:], file=seen, flush=True)
    if sys.argv[3:4] == ["--standby"]:
        if {dies!r}:
            sys.exit(1)
        told = sys.stdin.readline()
        print("told", os.getpid(), told, file=seen, end="", flush=True)
"""


@pytest.fixture
def waiting(monkeypatch, tmp_path):
    """Let WAITS run in place of stages, or end at once; returns what its processes wrote, when it is asked."""

    def begin(dies=False):
        seen = tmp_path / "seen"
        monkeypatch.setattr(isolated.sys, "executable", _interpreter(tmp_path, WAITS.format(seen=str(seen), dies=dies)))
        return lambda: [line.split(" ", 2) for line in seen.read_text().splitlines()]

    return begin


def run(folder):
    isolated.run_stage("train", "view", "patchcore", folder / "params.yaml", folder, 30, ("--curves", "c"))


def test_the_first_stage_runs_in_the_process_that_waits_and_the_next_in_one_of_its_own(waiting, tmp_path):
    seen = waiting()
    with isolated.standby(tmp_path / "params.yaml"):
        run(tmp_path)
        run(tmp_path)
    first, told, second = seen()
    words = ["train", "view", "patchcore", "--params", str(tmp_path / "params.yaml"), "--data", str(tmp_path)]
    words += ["--tethered", "--curves", "c"]
    assert first == ["begun", told[1], f"--standby --params {tmp_path / 'params.yaml'}"]
    assert (told[0], json.loads(told[2])) == ("told", words)
    assert second[2] == " ".join(words)
    assert second[1] != told[1]


def test_a_process_that_waits_in_vain_is_ended(waiting, tmp_path):
    waiting()
    with isolated.standby(tmp_path / "params.yaml"):
        process = isolated._WAITING[0]
        assert process.poll() is None
    assert process.poll() is not None
    assert not isolated._WAITING


def test_where_the_process_that_waits_was_ended_a_new_one_runs_the_stage(waiting, tmp_path):
    seen = waiting(dies=True)
    with isolated.standby(tmp_path / "params.yaml"):
        isolated._WAITING[0].wait()
        run(tmp_path)
    assert [line[2].split()[0] for line in seen()] == ["--standby", "train"]


def test_a_stage_dies_with_the_process_that_asked_for_it(tmp_path):
    code = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(__import__('os').getpid())); import time; time.sleep(120)"
    parent = (
        f"import sys; sys.executable = {_interpreter(tmp_path, code)!r}\n"
        "from pathlib import Path; from components.pipeline.isolated import run_stage\n"
        "run_stage('train', 'view', 'patchcore', Path('p'), Path('d'), 100)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent])
    end = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < end
        time.sleep(0.1)
    child = int((tmp_path / "pid").read_text())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.1)
