"""Batch scoring: a row for every file, whatever becomes of it."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.core.errors import DataError, PartlyScoredError
from components.decision import batch
from components.decision.batch import score
from components.decision.bundle import Bundle
from tests.conftest import tile


@pytest.fixture
def today(tmp_path):
    """Three pictures, one of them in a sub-folder, and files that are none."""
    root = tmp_path / "today"
    (root / "cam 1").mkdir(parents=True)
    for name, seed in (("a.png", 1), ("b.png", 2), ("cam 1/c.png", 3)):
        Image.fromarray(tile(seed)).save(root / name)
    return root


def test_a_folder_is_searched_and_the_table_has_no_problem(bundle, today, tmp_path):
    table = pd.read_parquet(score(bundle, [today], tmp_path / "out.parquet"))
    assert [Path(name).name for name in table["image_id"]] == ["a.png", "b.png", "c.png"]
    assert table["problem"].isna().all()
    assert set(table["decision"]) <= {"normal", "anomalous"}


def test_every_failed_file_has_a_row_and_the_rest_is_delivered(bundle, today, tmp_path):
    (today / "half.png").write_bytes((today / "a.png").read_bytes()[:2000])
    (today / "text.png").write_text("good part, trust me")
    out = tmp_path / "out.parquet"
    with pytest.raises(PartlyScoredError, match=r"3 of 6 files were not scored: see column problem of .*out\.parquet"):
        score(bundle, [today, tmp_path / "absent.png"], out)
    table = pd.read_parquet(out).set_index("image_id")
    failed = table[table["problem"].notna()]
    assert sorted(Path(name).name for name in failed.index) == ["absent.png", "half.png", "text.png"]
    assert failed["score"].isna().all()
    assert failed["decision"].isna().all()
    assert table["score"].notna().sum() == 3


@pytest.fixture
def at_once(monkeypatch):
    """How many pictures were being scored when each one was."""
    inner, lock, now, most = batch.record, threading.Lock(), [0], []

    def record(*given):
        with lock:
            now[0] += 1
            most.append(now[0])
        time.sleep(0.02)
        try:
            return inner(*given)
        finally:
            with lock:
                now[0] -= 1

    monkeypatch.setattr(batch, "record", record)
    return most


def test_several_pictures_are_scored_side_by_side_in_their_order(bundle, today, tmp_path, monkeypatch, at_once):
    paths = sorted(today.rglob("*.png")) * 3
    monkeypatch.setattr(batch, "cores", lambda: 3)
    several = pd.read_parquet(score(bundle, paths, tmp_path / "several.parquet"))
    assert max(at_once) == 3
    monkeypatch.setattr(batch, "cores", lambda: 1)
    at_once.clear()
    alone = pd.read_parquet(score(bundle, paths, tmp_path / "alone.parquet"))
    assert max(at_once) == 1
    assert list(several["image_id"]) == list(alone["image_id"]) == [str(path) for path in paths]
    assert several["decision"].equals(alone["decision"])
    np.testing.assert_allclose(several["score"], alone["score"], rtol=1e-5)


def test_large_pictures_are_scored_one_at_a_time(bundle, today, tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(batch, "cores", lambda: 3)
    monkeypatch.setattr(batch, "AT_ONCE", 96 * 96)
    score(bundle, sorted(today.rglob("*.png")) * 2, tmp_path / "out.parquet")
    assert max(at_once) == 1


def test_a_single_picture_has_all_cores(bundle, today, tmp_path, monkeypatch):
    monkeypatch.setattr(Bundle, "narrowed", lambda _: pytest.fail("on one thread"))
    monkeypatch.setattr(batch, "cores", lambda: 3)
    assert len(pd.read_parquet(score(bundle, [today / "a.png"], tmp_path / "out.parquet"))) == 1


def test_a_bundle_on_one_thread_answers_alike_and_opens_its_edge_graph_anew(bundle):
    opened = Bundle.open(bundle, 2)
    vars(opened)["edge"] = "on two threads"
    narrow = opened.narrowed()
    assert (narrow.threads, narrow.session is opened.narrow, "edge" in vars(narrow)) == (1, True, False)
    assert opened.session is not narrow.session
    ours, theirs = (one.answer(tile(5)) for one in (opened, narrow))
    assert theirs.score == pytest.approx(ours.score, rel=1e-5)
    assert theirs.decided.decision == ours.decided.decision


def test_an_unexpected_failure_of_one_file_stops_no_other(bundle, today, tmp_path, monkeypatch):
    inner = batch.record

    def fails(opened, path, *rest):
        if Path(path).name == "b.png":
            raise ZeroDivisionError("odd")
        return inner(opened, path, *rest)

    monkeypatch.setattr(batch, "record", fails)
    with pytest.raises(PartlyScoredError):
        score(bundle, [today], tmp_path / "out.parquet")
    problems = pd.read_parquet(tmp_path / "out.parquet")["problem"].dropna()
    assert len(problems) == 1
    assert "b.png: cannot be scored (ZeroDivisionError: odd)" in problems.iloc[0]


def test_odd_and_long_names_are_scored(bundle, today, tmp_path):
    content = (today / "a.png").read_bytes()
    Path(os.fsdecode(os.fsencode(today) + b"/bild \xfc.png")).write_bytes(content)
    (today / ("x" * 250 + ".png")).write_bytes(content)
    table = pd.read_parquet(score(bundle, [today], tmp_path / "out.parquet", tmp_path / "maps"))
    assert table["problem"].isna().all()
    assert len(set(table["map_uri"])) == 5
    assert all(Path(uri).exists() for uri in table["map_uri"])


def test_what_cannot_be_written_is_said_before_the_work(bundle, today, tmp_path):
    with pytest.raises(DataError, match="is a folder; give --out the name of a file"):
        score(bundle, [today], tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures in there"):
        score(bundle, [tmp_path / "empty"], tmp_path / "out.parquet")


def ran(command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def test_exit_status_says_what_was_not_scored(bundle, today, tmp_path):
    (today / "text.png").write_text("no picture")
    base = [sys.executable, "-m", "components.scoring", str(bundle)]
    partly = ran([*base, str(today), "--out", str(tmp_path / "one.parquet")])
    none = ran([*base, str(today / "text.png"), "--out", str(tmp_path / "two.parquet")])
    assert (partly.returncode, none.returncode) == (3, 1)
    assert "Traceback" not in partly.stderr + none.stderr
    assert "1 of 4 files were not scored" in partly.stderr


def test_the_runner_of_a_bundle_scores_as_the_service_does(bundle, today, tmp_path):
    deep = tile(5)[..., 0].astype("uint16") * 257
    Image.fromarray(deep).save(today / "deep.png")
    (today / "text.png").write_text("no picture")
    files = sorted(path for path in today.iterdir() if path.is_file())
    done = ran([sys.executable, str(bundle / "runner.py"), *map(str, files)])
    assert done.returncode == 3
    told = {line["image"]: line["score"] for line in map(json.loads, done.stdout.splitlines())}
    with pytest.raises(PartlyScoredError):
        score(bundle, files, tmp_path / "out.parquet")
    table = pd.read_parquet(tmp_path / "out.parquet").set_index("image_id")["score"].dropna()
    assert set(told) == set(table.index)
    assert all(told[name] == pytest.approx(value, rel=1e-5) for name, value in table.items())


def test_scripts_that_import_by_the_old_names_go_on():
    from components.scoring.batch import score as score_by_its_old_name
    from components.scoring.bundle import Bundle as BundleByItsOldName
    from components.scoring.inbox import process

    from components.decision import bundle
    from components.service import inbox

    assert score_by_its_old_name is score
    assert BundleByItsOldName is bundle.Bundle
    assert process is inbox.process


def test_the_table_is_written_as_its_suffix_says(bundle, today, tmp_path):
    whole = pd.read_parquet(score(bundle, [today], tmp_path / "out.parquet"))
    sheet = pd.read_csv(score(bundle, [today], tmp_path / "out.csv"))
    listed = json.loads(score(bundle, [today], tmp_path / "out.JSON").read_text())
    assert list(sheet["score"].round(4)) == list(whole["score"].round(4)) == [round(r["score"], 4) for r in listed]
    assert set(whole.columns) - set(sheet.columns) == {"embedding"}
    assert len(listed[0]["embedding"]) == 16
    for name in ("out.xlsx", "out"):
        with pytest.raises(DataError, match=r"give a name that ends in \.parquet, \.csv, \.json"):
            score(bundle, [today / "none.png"], tmp_path / name)


def test_anomalous_pictures_are_told_with_the_worst_first(bundle, today, tmp_path, caplog):
    caplog.set_level("INFO")
    for name, strength in (("mild.png", 90), ("bad.png", 255)):
        pixels = tile(5).copy()
        pixels[20:44, 20:44] = strength
        Image.fromarray(pixels).save(today / name)
    table = pd.read_parquet(score(bundle, [today], tmp_path / "out.parquet"))
    found = table[table["decision"] == "anomalous"].sort_values("score", ascending=False)
    assert len(found) >= 1
    assert f"{len(found)} of 5 pictures are anomalous, worst first:" in caplog.text
    told = [line for line in caplog.messages if " above " in line]
    assert [name in line for name, line in zip(found["image_id"], told, strict=True)] == [True] * len(found)


def test_patterns_are_resolved_where_the_shell_has_not(bundle, today, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for pattern in (Path("today/*.png"), today / "*.png"):
        table = pd.read_parquet(score(bundle, [pattern], tmp_path / "out.parquet"))
        assert [Path(name).name for name in table["image_id"]] == ["a.png", "b.png"]
    (today / "[odd].png").write_bytes((today / "a.png").read_bytes())
    assert len(pd.read_parquet(score(bundle, [today / "[odd].png"], tmp_path / "out.parquet"))) == 1


def test_overlays_are_pictures_of_their_own_size_with_the_heat_drawn(bundle, today, tmp_path):
    pixels = tile(5).copy()
    pixels[20:44, 20:44] = 255
    Image.fromarray(pixels).save(today / "bad.png")
    score(bundle, [today / "bad.png", today / "a.png"], tmp_path / "out.csv", overlays=tmp_path / "heat")
    drawn = {path.name.split("-")[0]: np.asarray(Image.open(path)) for path in (tmp_path / "heat").iterdir()}
    assert drawn["bad"].shape[:2] == pixels.shape[:2]
    red = drawn["bad"][..., 0].astype(int) - drawn["bad"][..., 2]
    assert red[20:44, 20:44].max() > 60
    assert len(drawn) == 2
