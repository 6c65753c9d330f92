"""What a user sees of an error: one sentence and a status, never a traceback; and refusals of the machine in words."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from components.core.artefacts import atomic_dir, locked, write_json
from components.core.boundary import boundary, lacking
from components.core.errors import DataError, PlaceError
from components.core.places import check_file, check_folder, check_room, refusal
from components.pipeline.fit import FitRequest, fit_folder


def ends(capsys, error):
    """The exit status and the last line that a user gets of *error*."""
    with pytest.raises(SystemExit) as ended, boundary():
        raise error
    said = capsys.readouterr().err
    assert "Traceback" not in said
    return ended.value.code, said.rstrip("\n")


def test_an_error_of_ours_is_its_sentence(capsys):
    assert ends(capsys, DataError("a.png: is broken; export it again")) == (
        1,
        "loupe: a.png: is broken; export it again",
    )


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE, errno.EFBIG])
def test_what_the_machine_refuses_is_one_sentence_with_the_place(capsys, number):
    status, said = ends(capsys, OSError(number, os.strerror(number), "runs/a"))
    assert status == 1
    assert said.startswith("loupe: runs/a: ")
    assert said.count(";") == 1
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("database or disk is full"),  # SQLite
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),  # safetensors
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_libraries_that_only_say_it_in_words_are_understood(error):
    assert refusal(error, Path("runs/a")) == (
        "runs/a: the disk is full; free some space there or choose a place on another disk"
    )


def test_a_mistake_of_ours_is_kept_in_a_file_and_named(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path))
    status, said = ends(capsys, KeyError("bank"))
    assert status == 70
    (log,) = (tmp_path / "log").iterdir()
    assert str(log) in said
    assert "KeyError" in said
    assert len(said.splitlines()) == 1
    assert "Traceback" in log.read_text()


def test_where_the_cache_cannot_be_written_the_temporary_folder_keeps_it(capsys, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    status, said = ends(capsys, KeyError("bank"))
    assert status == 70
    assert str(next((tmp_path / "loupe-log").iterdir())) in said


def test_a_traceback_is_shown_on_request(capsys, monkeypatch):
    monkeypatch.setenv("LOUPE_DEBUG", "1")
    with pytest.raises(SystemExit), boundary():
        raise DataError("broken")
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_130():
    # Short naps: a signal between the print and a long sleep would be heard behind the sleep.
    wait = "@c.app.command()\ndef wait():\n print('on', flush=True)\n while True: time.sleep(0.1)\n"
    code = f"import components.cli as c, time\n{wait}"
    started = [sys.executable, "-c", f"{code}c.main()", "wait"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a test in the background may have to ignore it
    process = subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heard)
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert said == "loupe: stopped before the end; the same command can be given again\n"


def test_a_stage_ends_with_its_sentence(tmp_path):
    (tmp_path / "params.yaml").write_text("data: {}\nviews: {}\n")
    command = [sys.executable, "-m", "components.pipeline.stages", "train", "tiles", "patchcore", "--params"]
    done = subprocess.run([*command, tmp_path / "params.yaml"], capture_output=True, text=True)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "views.tiles does not exist" in done.stderr


@pytest.fixture
def small_files():
    """No file of this process may be larger than 64 KiB, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_what_does_not_fit_leaves_the_earlier_artefact_and_names_it(tmp_path):
    out = tmp_path / "artefact"
    with atomic_dir(out) as scratch:
        (scratch / "a").write_text("one")
    with pytest.raises(PlaceError, match=r"artefact: .*ulimit -f"), atomic_dir(out) as scratch:
        (scratch / "a").write_bytes(bytes(2**17))
    with pytest.raises(PlaceError, match="artefact: not all of it"), atomic_dir(out) as scratch:
        np.save(scratch / "a.npy", np.zeros(2**16))
    assert [p.name for p in tmp_path.iterdir()] == ["artefact"]
    assert (out / "a").read_text() == "one"
    with pytest.raises(PlaceError, match=r"note\.json: "):
        write_json(tmp_path / "note.json", ["long"] * 2**16)
    assert [p.name for p in tmp_path.iterdir()] == ["artefact"]


def test_two_processes_that_write_one_folder_leave_one_whole(tmp_path):
    code = (
        "import sys; from pathlib import Path; from components.core.artefacts import atomic_dir\n"
        "for i in range(40):\n"
        "    with atomic_dir(Path(sys.argv[1])) as scratch:\n"
        "        for name in 'ab': (scratch / name).write_text(sys.argv[2])"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "out", name]) for name in ("one", "two")]
    assert [process.wait(timeout=120) for process in started] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert len({(tmp_path / "out" / name).read_text() for name in "ab"}) == 1


def test_another_process_that_puts_its_own_there_between_the_renames_is_replaced(tmp_path, monkeypatch):
    out, rename = tmp_path / "out", Path.rename

    def late(self, target):
        if Path(target) == out and not out.exists():  # just behind the look for an old one, which found none
            monkeypatch.setattr(Path, "rename", rename)
            out.mkdir()
            (out / "theirs").write_text("")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", late)
    with atomic_dir(out) as scratch:
        (scratch / "ours").write_text("")
    assert [path.name for path in out.iterdir()] == ["ours"]


def test_a_place_that_cannot_take_a_result_is_told_before_the_work(tmp_path, monkeypatch):
    data = tmp_path / "photos"
    (data / "train").mkdir(parents=True)
    (tmp_path / "file").write_text("")
    for out, said in (
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "run", "a part of this path is a file"),
        (data, "is the data set itself"),
        (data / "train" / "run", "lies inside the data set"),
        (tmp_path, "holds file and is not a run"),
    ):
        with pytest.raises(Exception, match=said):
            check_folder(out, data, lambda _: False, "a run")
    check_folder(tmp_path / "new" / "run", data, lambda _: False, "a run")
    check_folder(tmp_path, None, lambda _: True, "a run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos"]
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=2e8))
    with pytest.raises(PlaceError, match=r"run: 0\.2 GB are free on its disk, 1 GB are needed"):
        check_room(tmp_path / "run")


def test_a_picture_is_no_place_for_a_table(tmp_path):
    (tmp_path / "a.png").write_text("")
    with pytest.raises(Exception, match="is one of the files to read"):
        check_file(tmp_path / "a.png", [tmp_path / "b.png", tmp_path / "a.png"])
    check_file(tmp_path / "scores.parquet", [tmp_path / "a.png"])


def test_the_second_fit_into_a_folder_stops_before_it_touches_anything(product, tmp_path, capsys):
    out = tmp_path / "run"
    held = (
        "import sys, time; from pathlib import Path; from components.core.artefacts import locked\n"
        "with locked(Path(sys.argv[1]) / '.lock', wait=False): print('held', flush=True); time.sleep(120)"
    )
    holder = subprocess.Popen([sys.executable, "-c", held, out], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    before = sorted(out.iterdir())
    with pytest.raises(SystemExit) as ended, boundary():
        fit_folder(FitRequest("patchcore", product, preset="tiny", alpha=0.2), out)
    said = capsys.readouterr().err
    assert ended.value.code == 1
    assert f"loupe: {out}: process {holder.pid} on " in said
    assert len(said.splitlines()) == 1
    assert sorted(out.iterdir()) == before
    holder.kill()  # its lock ends with it
    holder.wait()
    started = time.monotonic()
    with locked(out / ".lock", wait=False):
        assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("command", "module", "extra"),
    [("fit", "torch", "train"), ("serve", "fastapi.routing", "serve"), ("score", "pyarrow", "tables")],
)
def test_a_package_that_is_not_installed_is_named_with_the_extra_that_brings_it(
    monkeypatch, capsys, command, module, extra
):
    monkeypatch.setattr("sys.argv", ["loupe", command])
    with pytest.raises(SystemExit) as ended, boundary():
        raise ModuleNotFoundError(f"No module named {module!r}", name=module)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith(f"loupe: {module.partition('.')[0]} is not installed")
    assert f"pip install 'loupe[{extra}]'" in said


def test_a_module_of_our_own_that_is_missing_is_a_mistake_of_ours():
    assert lacking(ModuleNotFoundError("", name="components.nowhere")) is None
    assert lacking(ValueError("torch")) is None
