"""The champion over all detectors within a time: how the pipeline is asked, and what is read of what it left."""

from pathlib import Path

import pytest
import yaml

from benchmarks.production import champion
from components.core.errors import StageError
from components.pipeline.params import load_params

BOARD = "view,detector,image AUROC\nv,padim,0.95\nv,patchcore,0.94\nv,prn,0.9\n"
LOG = """12:00:01 alps is left out of v: no time is left of total_minutes
12:00:02 v/prn failed and is left out, the others go on: maps differ
v: champion is patchcore, version 2
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "artefacts/leaderboard").mkdir(parents=True)
    (tmp_path / "artefacts/leaderboard/leaderboard.csv").write_text(BOARD)
    (tmp_path / "log").write_text(LOG)
    return tmp_path


def test_what_a_run_left_is_told_with_who_is_no_candidate_and_why(folder):
    found = champion.left(folder, "v")
    assert found["champion"] == "patchcore"
    assert found["candidates"] == {"padim": 0.95, "patchcore": 0.94, "prn": 0.9}
    assert (found["left_out"], found["failed"]) == (["alps"], ["prn"])
    shown = champion.page({"v": {"commit": "0123456789", "asked": 30.0, "minutes": 29.51, **found}})
    assert "| v | 29.5 | 30 | 3 | patchcore | 0.940 | padim | 0.950 | 0.010 | 01234567 |" in shown
    assert "v, no time was left: alps." in shown
    assert "v, failed: prn." in shown


def test_where_one_failed_the_champion_is_in_the_log_alone(folder):
    (folder / "log").write_text("12:00 | INFO | Flow run 'x' - v: padim, version 1 (padim: graded anomalies ...)\n")
    assert champion.left(folder, "v")["champion"] == "padim"


@pytest.mark.parametrize(("name", "said"), [("log", "no champion"), ("board", "no leaderboard")])
def test_a_run_that_left_nothing_is_told_with_its_log(folder, name, said):
    if name == "log":
        (folder / "log").write_text("nothing\n")
    else:
        (folder / "artefacts/leaderboard/leaderboard.csv").unlink()
    with pytest.raises(StageError, match=said):
        champion.left(folder, "v")


def test_the_pipeline_is_asked_for_all_detectors_with_a_cache_and_a_registry_of_its_own(tmp_path, monkeypatch):
    asked = []

    def run(words, env, **_):
        asked.extend([words[3:], Path(env["LOUPE_CACHE"])])

    monkeypatch.setattr(champion, "WORK", tmp_path)
    monkeypatch.setattr(champion.subprocess, "run", run)
    monkeypatch.setattr(champion, "left", lambda folder, view: {"champion": f"{folder.name} {view}"})
    monkeypatch.setattr(champion, "commit", lambda: "c")
    found = champion.measured("elpv-mono", 12.0)
    file = tmp_path / "champion/elpv-mono/params.yaml"
    assert asked[0] == ["pipeline", "--detectors", "all", "--views", "elpv-mono", "--params", str(file)]
    assert asked[1].is_relative_to(file.parent)
    assert (found["asked"], found["champion"]) == (12.0, "elpv-mono elpv-mono")
    params = load_params(file)
    assert params.pipeline.total_minutes == 12
    assert all(Path(place).is_relative_to(file.parent) for place in (params.artefacts, params.registry.folder))
    own = yaml.safe_load(Path("params.yaml").read_text())
    assert params.train == load_params(Path("params.yaml")).train
    assert own["pipeline"]["total_minutes"] is None


def test_nothing_is_measured_for_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(champion, "OUT", tmp_path / "champion.json")
    champion.main(["--report"])
    assert "Nothing is measured yet" in (tmp_path / "champion.md").read_text()
