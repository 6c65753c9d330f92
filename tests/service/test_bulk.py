"""Bulk scoring: shards that never change, any number of workers, kills and outages; every image exactly once."""

import collections
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from benchmarks.common.site import free_port
from components.core.errors import DataError, PartlyScoredError, PlaceError, SettingsError, StageError, StorageError
from components.decision.batch import score
from components.service import bulk as bulking
from components.service.bulk import (
    Counts,
    bulk,
    missing,
    patiently,
    prepare,
    read_manifest,
    score_shard,
    write_manifest,
)
from components.service.cluster import spread
from components.storage import open_store
from tests.conftest import tile
from tests.service.conftest import png

IMAGES = 12


@pytest.fixture
def source(tmp_path):
    """Pictures in two folders, and what is none."""
    root = tmp_path / "pictures"
    for number in range(IMAGES):
        path = root / f"camera-{number % 2}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(tile(number)).save(path)
    (root / "notes.txt").write_text("none")
    (root / ".hidden.png").write_bytes(b"none")
    return root


@pytest.fixture
def shards(source, tmp_path):
    write_manifest(str(source), str(tmp_path / "shards"), 5)
    return str(tmp_path / "shards")


def found(out) -> pd.DataFrame:
    store = open_store(str(out))
    return pd.concat([pd.read_parquet(io.BytesIO(store.get(key))) for key in store.keys("scores/")], ignore_index=True)


def test_a_manifest_names_each_picture_once_and_never_changes(source, shards):
    known = read_manifest(shards)
    assert (known.images, known.per_shard, known.shards) == (IMAGES, 5, 3)
    named = [name for path in sorted(Path(shards, "names").iterdir()) for name in pd.read_parquet(path)["image"]]
    assert named == sorted(p.relative_to(source).as_posix() for p in source.rglob("camera-*/*.png"))
    with pytest.raises(DataError, match="holds a manifest, which never changes"):
        write_manifest(str(source), shards)


@pytest.mark.parametrize(("per", "said"), [(0, "--per is 0"), (3, "no pictures in there")])
def test_what_makes_no_shards_is_refused(tmp_path, per, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=said):
        write_manifest(str(tmp_path / "empty"), str(tmp_path / "shards"), per)
    with pytest.raises(DataError, match="make one with `loupe shards`"):
        read_manifest(str(tmp_path / "shards"))


def test_scores_are_those_of_the_command_for_a_few(bundle, source, shards, tmp_path):
    said = bulk(shards, bundle, str(tmp_path / "out"), workers=1)
    ours = found(tmp_path / "out")
    few = pd.read_parquet(score(bundle, [source], tmp_path / "few.parquet"))
    assert said == f"{IMAGES} images scored, {(few['decision'] == 'anomalous').sum()} anomalous"
    assert sorted(ours["image_id"]) == sorted(Path(p).relative_to(source).as_posix() for p in few["image_id"])
    pd.testing.assert_series_equal(ours.sort_values("image_id")["score"], few["score"], check_index=False, rtol=1e-5)
    assert json.loads((tmp_path / "out/summary.json").read_text())["scored"] == IMAGES


def test_the_same_command_goes_on_with_the_shards_that_have_no_table(bundle, shards, tmp_path, monkeypatch):
    job = prepare(shards, bundle, str(tmp_path / "out"))
    assert missing(job) == [0, 1, 2]
    assert score_shard(job, 1).scored == 5
    assert missing(job) == [0, 2]
    asked = []
    monkeypatch.setattr(bulking, "spread", lambda work, left, *_: asked.extend(left) or map(work, left))
    bulk(shards, bundle, str(tmp_path / "out"))
    assert asked == [0, 2]
    assert len(found(tmp_path / "out")) == IMAGES


def test_a_place_with_scores_of_another_job_is_refused(bundle, source, shards, tmp_path):
    prepare(shards, bundle, str(tmp_path / "out"))
    write_manifest(str(source), str(tmp_path / "others"), 3)
    with pytest.raises(DataError, match="scores of another manifest, model or group"):
        prepare(str(tmp_path / "others"), bundle, str(tmp_path / "out"))


def test_bad_files_are_quarantined_by_name_and_the_others_scored_by_two_processes(bundle, source, shards, tmp_path):
    (source / "camera-0/00.png").write_bytes(b"no picture")
    (source / "camera-1/03.png").unlink()
    with pytest.raises(PartlyScoredError, match=r"2 of 12 images were not scored: see quarantine\.csv"):
        bulk(shards, bundle, str(tmp_path / "out"), workers=2)
    bad = pd.read_csv(tmp_path / "out/quarantine.csv")
    assert list(bad["image"]) == ["camera-0/00.png", "camera-1/03.png"]
    assert bad["reason"].str.len().min() > 10
    rows = found(tmp_path / "out")
    assert (len(rows), rows["score"].notna().sum()) == (IMAGES, IMAGES - 2)


def test_a_store_that_is_away_is_waited_for_and_not_for_ever(monkeypatch):
    monkeypatch.setattr(bulking, "FIRST_WAIT", 0.01)
    asked = []

    def away(times):
        asked.append(times)
        if len(asked) <= times:
            raise StorageError("away")
        return "here"

    assert patiently(lambda: away(3), 5.0) == "here"
    assert len(asked) == 4
    asked.clear()
    with pytest.raises(StorageError):
        patiently(lambda: away(1000), 0.2)


def killed(_):
    os.kill(os.getpid(), signal.SIGKILL)


def test_slips_are_told_before_the_work():
    with pytest.raises(SettingsError, match="not both"):
        spread(killed, [1, 2], 2, "tcp://127.0.0.1:1")
    with pytest.raises(SettingsError, match="--workers is 0"):
        spread(killed, [1, 2], 0)
    with pytest.raises(SettingsError, match="give images, or the shards"):
        bulking.wanted([], None, {}, {})
    with pytest.raises(SettingsError, match="--maps: not with --manifest"):
        bulking.wanted([], "shards", {"--maps": Path("maps"), "--cascade": False}, {})
    with pytest.raises(SettingsError, match="--workers: with --manifest alone"):
        bulking.wanted([Path("a.png")], None, {}, {"--workers": 2, "--scheduler": None})


def test_a_killed_process_of_this_machine_is_told_with_what_to_do():
    with pytest.raises(StageError, match="give the same command again"):
        list(spread(killed, [1, 2], 2))


def test_no_scheduler_is_told(monkeypatch):
    monkeypatch.setattr("components.service.cluster.CONNECT_S", 0.5)
    with pytest.raises(PlaceError, match="no Dask scheduler answers"):
        list(spread(killed, [1], None, f"tcp://127.0.0.1:{free_port()}"))


def started(folder, *words):
    """A process of Dask, in its own group, whose log lies in *folder*."""
    with (folder / f"{words[0]}-{time.monotonic_ns()}.log").open("w") as log:
        module, *given = words  # what `dask scheduler` and `dask worker` run, here with the folder of the tests
        command = [sys.executable, "-m", f"distributed.cli.dask_{module}", *given, "--host", "127.0.0.1"]
        return subprocess.Popen([*command, "--no-dashboard"], stdout=log, stderr=log)


@pytest.fixture
def cluster(tmp_path, s3_process):  # noqa: ARG001 (workers inherit where it is)
    """A scheduler and two workers of one thread each, processes of their own: address and workers."""
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    processes = [started(tmp_path, "scheduler", "--port", str(port))]
    local = ("--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path))
    processes += [started(tmp_path, "worker", address, *local) for _ in range(2)]
    yield address, processes[1:]
    for process in processes:
        process.kill()
        process.wait(20)


def test_a_killed_worker_and_a_store_that_is_away_lose_and_double_nothing(bundle, cluster, s3_process):
    address, (victim, _) = cluster
    store, images = open_store("s3://plant/pictures"), 120
    for number in range(images):
        store.put(f"{number:03d}.png", png(number % 7))
    write_manifest("s3://plant/pictures", "s3://plant/shards", 2)
    out, ended = "s3://plant/scores", []

    def work():
        try:
            ended.append(bulk("s3://plant/shards", bundle, out, scheduler=address))
        except Exception as error:
            ended.append(repr(error))
            raise

    run = threading.Thread(target=work)
    run.start()
    while len(list(open_store(out).keys("scores/"))) < 3:
        assert run.is_alive(), ended
        time.sleep(0.05)
    s3_process.send_signal(signal.SIGSTOP)
    victim.kill()
    time.sleep(3)
    s3_process.send_signal(signal.SIGCONT)
    run.join(240)
    assert ended
    assert ended[0].startswith(f"{images} images scored")
    rows = found(out)
    assert collections.Counter(rows["image_id"]) == {f"{number:03d}.png": 1 for number in range(images)}
    assert rows["score"].notna().all()


def test_counts_add_up():
    assert sum([Counts(3, 1, 0), Counts(2, 0, 1)], Counts()) == Counts(5, 1, 1)
