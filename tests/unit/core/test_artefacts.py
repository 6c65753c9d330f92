"""Artefact directories are whole or absent: after an error, after a kill, after a power cut."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.core.artefacts import YamlError, atomic_dir, git_commit, parsed_yaml, read_json, tree_hash, write_json
from components.service.recorder import Recorder
from components.service.settings import ServiceSettings
from components.storage import open_store


def test_failed_block_leaves_the_earlier_artefact(tmp_path):
    out = tmp_path / "artefact"
    with atomic_dir(out) as scratch:
        (scratch / "a").write_text("one")
    before = tree_hash(out)
    with pytest.raises(ZeroDivisionError), atomic_dir(out) as scratch:
        (scratch / "a").write_text(str(1 / 0))
    assert tree_hash(out) == before
    assert [p.name for p in tmp_path.iterdir()] == ["artefact"]


@pytest.fixture
def dead():
    """The number of a process that is no more."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    return gone.pid


def aside(out, pid, kind):
    path = out.parent / f".{out.name}.{pid}.{kind}"
    path.mkdir()
    (path / "a").write_text(kind)
    return path


def test_what_a_killed_process_left_is_cleared_away(tmp_path, dead):
    out = tmp_path / "artefact"
    out.mkdir()
    aside(out, dead, "part")
    aside(out, dead, "old")
    living = aside(out, os.getppid(), "part")
    other = aside(tmp_path / "artefact.checkpoint", dead, "part")
    with atomic_dir(out) as scratch:
        (scratch / "a").write_text("new")
    assert (out / "a").read_text() == "new"
    assert {p.name for p in tmp_path.iterdir()} == {"artefact", living.name, other.name}


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path, dead):
    out = tmp_path / "artefact"
    aside(out, dead, "old")
    with pytest.raises(ZeroDivisionError), atomic_dir(out):
        raise ZeroDivisionError
    assert (out / "a").read_text() == "old"


def test_a_directory_is_on_the_disk_before_it_takes_its_place(tmp_path, monkeypatch):
    out, seen = tmp_path / "artefact", []
    monkeypatch.setattr(os, "sync", lambda: seen.append(out.exists()))
    with atomic_dir(out) as scratch:
        (scratch / "a").write_text("new")
    assert seen == [False]


def test_a_note_and_a_picture_are_on_the_disk_before_they_have_their_name(tmp_path, monkeypatch):
    seen, flush = [], os.fsync
    places = tmp_path / "note.json", tmp_path / "spool" / "images"
    recorder = Recorder(open_store(str(tmp_path / "store")), ServiceSettings(spool=str(tmp_path / "spool")))

    def look(handle):
        size = os.fstat(handle).st_size
        seen.append((size, places[0].exists(), [p.name for p in places[1].iterdir() if not p.name.startswith(".")]))
        flush(handle)

    monkeypatch.setattr(os, "fsync", look)
    write_json(places[0], {"a": 1})
    sha256 = recorder.keep_image(b"picture")
    assert seen == [(12, False, []), (7, True, [])]
    assert read_json(places[0]) == {"a": 1}
    assert (places[1] / sha256).read_bytes() == b"picture"


def test_a_machine_without_git_names_no_commit(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert git_commit() is None


def test_two_threads_of_one_process_write_the_same_folder_and_none_takes_the_others_files(tmp_path):
    """The watch of the registry and the page that moved the champion fetch the same version at the same moment."""
    out, both, failed = tmp_path / "artefact", threading.Barrier(2), []

    def write(text):
        try:
            with atomic_dir(out) as scratch:
                both.wait(10)
                (scratch / "a").write_text(text)
                both.wait(10)
                (scratch / "b").write_text(text)
        except Exception as error:
            failed.append(error)
            both.abort()

    threads = [threading.Thread(target=write, args=(text,)) for text in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert (out / "a").read_text() == (out / "b").read_text()
    assert [p.name for p in tmp_path.iterdir()] == ["artefact"]


def test_what_the_process_before_in_the_same_container_left_is_cleared_away(tmp_path):
    """It had the same number, and so has what it was writing."""
    out = tmp_path / "artefact"
    for stamp in (os.getpid(), f"{os.getpid()}-{10**9}"):
        aside(out, stamp, "part")
    with atomic_dir(out) as scratch:
        (scratch / "a").write_text("new")
    assert [p.name for p in tmp_path.iterdir()] == ["artefact"]


def test_threads_write_the_same_json_file_whole(tmp_path):
    def write(number):
        for _ in range(50):
            write_json(tmp_path / "a.json", {"numbers": [number] * 1000})

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(4))) == [None] * 4
    assert len(set(read_json(tmp_path / "a.json")["numbers"])) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: [1\nb: 2", 2, "expected"),
        ("a: 2026-13-45", None, "month must be in 1..12"),
        ("[" * 100_000, None, "more than 100 brackets within each other"),
        ("- " * 5000, None, "recursion"),
    ],
)
def test_what_is_no_yaml_is_told_in_bounded_time(text, line, said):
    with pytest.raises(YamlError, match=said) as error:
        parsed_yaml(text)
    assert error.value.line == line


def test_brackets_beside_each_other_are_no_depth():
    assert parsed_yaml("a: [" + ", ".join(["{b: [1]}"] * 200) + "]") == {"a": [{"b": [1]}] * 200}
