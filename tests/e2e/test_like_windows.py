"""Training, another threshold, scoring and the service where Python is as Windows has it (tests/windows)."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import FEW, SMALL
from tests.service.conftest import Server, png

PROJECT = Path(__file__).parents[2]
CODE_PAGE = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}


@pytest.fixture(scope="module")
def here(product, tmp_path_factory):
    """A folder where Windows' rules hold, with a name that no code page of America has."""
    folder = tmp_path_factory.mktemp("windows") / "Prüfstand"
    shutil.copytree(product, folder / "photos")
    return folder


@pytest.fixture(scope="module")
def environment(here):
    path = f"{PROJECT / 'tests/windows'}{os.pathsep}{PROJECT}"
    places = {"LIKE_WINDOWS_BELOW": str(here), "LOUPE_CACHE": str(here / "cache"), "PYTHONPATH": path}
    return {**os.environ, **CODE_PAGE, **places}


@pytest.fixture(scope="module")
def loupe(here, environment):
    def run(*words) -> str:
        command = [sys.executable, "-m", "components.cli", *map(str, words)]
        done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="module")
def fitted(loupe, here):
    said = loupe("fit", "patchcore", *SMALL, *FEW, "--data", "photos", "--out", "run")
    assert "threshold" in said
    return here / "run"


@pytest.mark.slow
def test_a_run_is_trained_moved_and_scores(fitted, loupe, here):
    """The new threshold takes the place of the whole folder, whose lock is held meanwhile."""
    assert (fitted / "report.html").exists()
    assert "operating point in run" in loupe("calibrate", "run", "--alpha", "0.3")
    loupe("score", "run/bundle", "photos/test", "--out", "today.csv", "--overlays", "heat")
    table = pd.read_csv(here / "today.csv")
    assert len(table) == 16
    assert table.groupby(table["image_id"].str.contains("scratch"))["score"].mean().is_monotonic_increasing
    assert len(list((here / "heat").iterdir())) == 16
    assert [path.name for path in here.glob(".run*")] == [".run.lock"]


@pytest.mark.slow
def test_the_service_answers_and_ships_what_it_has_logged(fitted, here, environment):
    store = here / "store"
    server = Server(here, str(fitted / "bundle"), str(store), env=environment)
    server.start()
    try:
        status, answer, _ = server.score(png(1), "?source=line-1")
        assert status == 200, answer
    finally:
        server.stop()  # its parent; it hears of that, drains and ships
    until = time.monotonic() + 60
    while list((here / "spool").rglob("*.jsonl")) + list((here / "spool").rglob("*.open")):
        assert time.monotonic() < until
        time.sleep(0.2)
    (table,) = store.rglob("scores/*/*/*.parquet")
    assert table.parents[1].name == "source=line-1"
