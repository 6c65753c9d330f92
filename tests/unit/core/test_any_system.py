"""Locks, processes, files and text where fcntl, resource and signals of POSIX are missing, and that nobody else asks.

Windows is played by ``tests/windows/sitecustomize.py``; what is tested with it is tested without it as well.
"""

import ast
import gc
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.core import system
from components.core.artefacts import LOCK, lock_of, locked, reading
from components.core.errors import PlaceError
from components.core.filenames import called, stored
from components.pipeline import isolated
from components.scorelog.spool import CLOSED, OPEN, Spool
from components.storage import LocalStore
from tests.windows import sitecustomize as windows

PROJECT = Path(__file__).parents[3]
ONE = PROJECT / "components/core/system.py"
# Of os and signal what is left on Windows stands in the documentation of Python 3.11.
ABSENT = {*windows.ABSENT_OS, *windows.ABSENT_SIGNALS, "SIGCHLD", "SIGQUIT", "SIGPIPE", "wait3", "wait4", "uname"}
HELD = """\
import sys
from pathlib import Path
from components.core import system

stream = Path(sys.argv[1]).open("a+" if sys.argv[2] == "alone" else "r")
system.take(stream, shared=sys.argv[2] == "shared")
print("held", flush=True)
sys.stdin.read()
"""


def sources() -> list[Path]:
    return [path for house in ("components", "flows") for path in sorted((PROJECT / house).rglob("*.py"))]


def test_what_only_some_systems_have_is_asked_for_in_one_module():
    wrong = []
    for path in sources():
        if path == ONE:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id in ("os", "signal")
            ):
                names += [node.attr]
            if isinstance(node, ast.keyword) and node.arg in ("shell", "preexec_fn"):
                names += [] if isinstance(node.value, ast.Attribute) and node.value.attr == "BEFORE" else [node.arg]
            if isinstance(node, ast.Attribute) and node.attr in ("symlink_to", "symlink"):
                names += [node.attr]
            bad = {*windows.ABSENT_MODULES, *ABSENT, "shell", "preexec_fn", "symlink_to", "symlink"}
            wrong += [f"{path}:{getattr(node, 'lineno', 0)}: {name}" for name in names if name in bad]
    assert not wrong


def test_no_path_is_put_together_from_words():
    """No folder of one system, and none of a virtual environment, is written out."""
    written = re.compile(r"""["'](/tmp|/dev/shm|/var|/etc|[^"']*bin/python)""")
    assert [str(path) for path in sources() if path != ONE and written.search(path.read_text())] == []


@pytest.fixture(params=["posix", "windows"])
def side(request, monkeypatch, tmp_path):
    """This process and those that it starts on one kind of system; returns the environment of the latter."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    if request.param == "windows":
        for module in windows.ABSENT_MODULES:
            monkeypatch.setitem(sys.modules, module, None)
        monkeypatch.setitem(sys.modules, "msvcrt", windows.Msvcrt())
        for name, value in {"fcntl": None, "resource": None, "WINDOWS": True}.items():
            monkeypatch.setattr(system, name, value)
        for name, value in {"WinDLL": windows.WinDLL, "get_last_error": lambda: 0}.items():
            monkeypatch.setattr(system.ctypes, name, value, raising=False)
        environment["PYTHONPATH"] = f"{PROJECT / 'tests/windows'}{os.pathsep}{PROJECT}"
        environment["LIKE_WINDOWS_BELOW"] = str(tmp_path)
    return environment


@pytest.fixture
def holder(side):
    """Start processes that hold a lock until they are killed."""
    started = []

    def begin(path: Path, how: str = "alone") -> subprocess.Popen:
        command = [sys.executable, "-c", HELD, str(path), how]
        process = subprocess.Popen(command, env=side, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def free(path: Path, shared: bool = False) -> bool:
    with path.open("r" if shared else "a+") as stream:
        try:
            system.take(stream, wait=False, shared=shared)
        except BlockingIOError:
            return False
        system.release(stream)
        return True


def test_two_processes_exclude_each_other_and_a_killed_one_frees(holder, tmp_path):
    path = tmp_path / "lock"
    path.write_text("what others read")
    process = holder(path)
    assert not free(path)
    assert not free(path, shared=True)
    assert path.read_text() == "what others read"  # Windows would refuse what is locked
    process.kill()
    process.wait()
    assert free(path)
    assert free(path, shared=True)


def test_readers_share_and_keep_a_writer_out(holder, tmp_path):
    path = tmp_path / "lock"
    path.write_text("")
    readers = [holder(path, "shared"), holder(path, "shared")]
    assert free(path, shared=True)
    assert not free(path)
    for reader in readers:
        reader.kill()
        reader.wait()
    assert free(path)


def test_who_waits_gets_the_lock_when_it_is_free(holder, tmp_path):
    path = tmp_path / "lock"
    process = holder(path)
    began = time.monotonic()
    subprocess.Popen([sys.executable, "-c", f"import time, os; time.sleep(0.5); os.kill({process.pid}, 9)"])
    with path.open("a+") as stream:
        system.take(stream)
        assert time.monotonic() - began > 0.3


@pytest.mark.usefixtures("side")
def test_a_lock_is_given_back_at_once_and_says_who_holds_it(tmp_path):
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text().split()[0] == str(os.getpid())
        with pytest.raises(PlaceError, match=r"run: .* writes there"), locked(tmp_path / "lock", False, "run"):
            pass
        with pytest.raises(PlaceError, match=r"run: .* writes there"), reading(tmp_path / "lock", "run"):
            pass
    for _ in range(2):
        with reading(tmp_path / "lock", "run"), reading(tmp_path / "lock", "run"):
            assert not free(tmp_path / "lock")
    assert free(tmp_path / "lock")


def test_a_live_segment_is_left_alone_and_a_killed_process_loses_no_line(side, tmp_path):
    code = (
        "import sys; from pathlib import Path; from components.scorelog.spool import Spool\n"
        "spool = Spool(Path(sys.argv[1])); spool.append([{'a': 1}]); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "spool")]
    process = subprocess.Popen(command, env=side, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    spool = Spool(tmp_path / "spool")
    assert spool.closed() == []
    process.kill()
    process.communicate()
    (segment,) = spool.closed()
    assert segment.read_text() == '{"a": 1}\n'
    assert [path.name for path in spool.folder.iterdir()] == [segment.name]


def test_a_segment_of_an_older_program_that_lives_is_left_alone(tmp_path):
    """Those lock the segment itself and nothing beside it; and they see that this program's is in use."""
    old = tmp_path / f"a{OPEN}"
    with old.open("ab") as stream:
        system.take(stream)
        assert Spool(tmp_path).closed() == []
    assert [path.suffix for path in Spool(tmp_path).closed()] == [CLOSED]
    spool = Spool(tmp_path / "new")
    spool.append([{"a": 1}])
    (segment,) = spool.folder.glob(f"*{OPEN}")
    assert not free(segment)


@pytest.mark.usefixtures("side")
def test_an_outage_of_the_disk_leaves_no_locks(tmp_path, monkeypatch):
    spool, plain = Spool(tmp_path), Path.open

    def full(self, *how):
        if self.suffix == OPEN:
            raise OSError(28, "full")
        return plain(self, *how)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(Exception, match="cannot be written"):
            spool.append([{"a": 1}])
    assert list(tmp_path.iterdir()) == []
    spool.append([{"a": 1}])
    assert len(spool.pending()) == 1


@pytest.mark.usefixtures("side")
def test_processes_and_memory_are_known():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert system.lives(os.getppid())
    assert not system.lives(gone.pid)
    assert not system.lives(os.getpid())
    assert 10 < system.peak_memory_mb() < 100_000


@pytest.mark.usefixtures("side")
def test_what_is_flushed_reserved_and_replaced_is_there(tmp_path, monkeypatch):
    if system.WINDOWS:
        for name in ("sync", "fdatasync", "posix_fallocate"):
            monkeypatch.delattr(os, name)
    (tmp_path / "below").mkdir()
    (tmp_path / "below/a").write_text("new")
    with (tmp_path / "below/a").open("r+b") as stream:
        system.flush(stream.fileno())
        assert system.reserve(stream.fileno(), 3) is not system.WINDOWS
    system.flush_below(tmp_path)
    system.flush_names(tmp_path)
    assert system.replace(tmp_path / "below/a", tmp_path / "b").read_text() == "new"
    assert system.swapped(tmp_path / "b", tmp_path / "below") is not system.WINDOWS


def test_a_file_that_is_read_is_replaced_when_its_reader_is_done(monkeypatch, tmp_path):
    tries, plain = [], Path.replace

    def busy(self, target):
        tries.append(self)
        if len(tries) < 3:
            raise PermissionError(13, "in use")
        return plain(self, target)

    (tmp_path / "a").write_text("new")
    monkeypatch.setattr(Path, "replace", busy)
    with pytest.raises(PermissionError):
        system.replace(tmp_path / "a", tmp_path / "b")
    monkeypatch.setattr(system, "WINDOWS", True)
    assert system.replace(tmp_path / "a", tmp_path / "b").read_text() == "new"


def test_the_lock_of_a_folder_that_is_replaced_lies_where_it_can_be_open(monkeypatch, tmp_path):
    assert lock_of(tmp_path / "run") == tmp_path / "run" / LOCK
    monkeypatch.setattr(system, "WINDOWS", True)
    assert lock_of(tmp_path / "run") == tmp_path / ".run.lock"


def test_a_process_ends_with_the_one_that_holds_its_input():
    code = "from components.core.system import end_with_parent; end_with_parent(); import time; time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.stdin.close()
    assert process.wait(30) == 1


def test_a_stage_is_tethered_on_every_system(monkeypatch, tmp_path):
    """It reads the end of its input when its parent ends, and a parent that ends it needs no group of processes."""
    seen = tmp_path / "seen"
    script = tmp_path / "python"
    code = f"import sys, time; open({str(seen)!r}, 'w').write(' '.join(sys.argv)); sys.stdin.read(); time.sleep(60)"
    script.write_text(f"#!{sys.executable}\n{code}\n")
    script.chmod(0o755)
    monkeypatch.setattr(isolated.sys, "executable", str(script))
    for name, value in {"WINDOWS": True, "BEFORE": None}.items():
        monkeypatch.setattr(system, name, value)
    with pytest.raises(isolated.StageError, match="took longer than 2 s and was killed"):
        isolated.run_stage("train", "view", "patchcore", tmp_path / "params.yaml", tmp_path, 2)
    assert seen.read_text().endswith("--tethered")


def test_text_is_utf8_whatever_the_system_says(tmp_path):
    (tmp_path / "shown.py").write_text(
        "import sys; from components.core.system import in_utf8; in_utf8('shown')\n"
        "from pathlib import Path; Path('a').write_text('Größe'); print(sys.flags.utf8_mode, sys.argv[1:])"
    )
    code = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}  # as a code page of Windows
    environment = {**os.environ, **code, "PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"}
    command = [sys.executable, "-m", "shown", "a b"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout == "1 ['a b']\n", done.stderr
    assert (tmp_path / "a").read_bytes() == "Größe".encode()


def test_what_runs_in_place_of_a_process_ends_with_it(tmp_path):
    (tmp_path / "shown.py").write_text(
        "import os, time; from components.core.system import in_utf8; in_utf8('shown')\n"
        "print(os.getpid(), flush=True); time.sleep(60)"
    )
    code = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "LIKE_WINDOWS_BELOW": str(tmp_path)}
    path = os.pathsep.join(map(str, (PROJECT / "tests/windows", tmp_path, PROJECT)))
    environment = {**os.environ, **code, "PYTHONPATH": path}
    process = subprocess.Popen([sys.executable, "-m", "shown"], env=environment, stdout=subprocess.PIPE, text=True)
    child = int(process.stdout.readline())
    assert child != process.pid
    process.kill()
    process.wait()
    until = time.monotonic() + 20
    while system.lives(child):
        assert time.monotonic() < until
        time.sleep(0.1)


def test_names_that_windows_refuses_are_written_in_other_signs(monkeypatch, tmp_path):
    names = ["line:1", "a?b", "CON", "con.txt", "end.", "end ", "50%", "plain", "cone", "Presse Süd"]
    assert [stored(name) for name in names] == names
    monkeypatch.setattr(system, "WINDOWS", True)
    assert [stored(name) for name in names][:6] == ["line%3A1", "a%3Fb", "%43ON", "%63on.txt", "end%2E", "end%20"]
    assert not [name for name in names if windows.REFUSED.search(stored(name))]
    assert [called(stored(name)) for name in names] == names
    store = LocalStore(tmp_path)
    store.put("scores/source=line:1/con/a.parquet", b"1")
    assert list(store.keys("scores/source=line:1/")) == ["scores/source=line:1/con/a.parquet"]
    assert store.folders("scores/") == ["source=line:1"]
    assert store.get("scores/source=line:1/con/a.parquet") == b"1"
    assert not windows.REFUSED.search(next(tmp_path.glob("scores/*")).name)


def test_rubbish_is_looked_for_rarely_and_still_found():
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        system.collect_rarely()
        assert gc.isenabled()
        assert 700 < gc.get_threshold()[0] <= 100_000
    finally:
        gc.set_threshold(*before)
