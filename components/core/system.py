"""What Linux, macOS and Windows do differently, in one place: locks, flushes, processes, memory, text.

Everything else of Loupe asks here; a test forbids it what only some systems have (tests/unit/core/test_any_system.py).
"""

import contextlib
import ctypes
import errno
import gc
import locale
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
    import resource
except ImportError:  # Windows
    fcntl = resource = None  # type: ignore[assignment]

WINDOWS = fcntl is None
# Windows locks ranges of bytes, and what is locked others cannot read: a range far behind the end of every file that
# is locked here, below the 2 GiB that its C library can address. Who writes takes all of it, who reads one byte of it.
AT, SLOTS = 0x7FFF_0000, 64
PARENT = "LOUPE_PARENT"  # number of the process that waits for this one
PAUSE = 0.05  # seconds between two tries where the system cannot wait
PATIENCE = 2.0  # seconds for a reader of a file on Windows to close it, before its replacing fails
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of Linux
PR_SET_PDEATHSIG = 1  # of Linux' prctl.h
STILL_ACTIVE, QUERY, ACCESS_DENIED = 259, 0x1000, 5  # of Windows' processes


def take(stream: IO[Any], wait: bool = True, shared: bool = False) -> None:
    """Lock an open file among all processes of this machine until ``release``, its closing, or the process's end.

    Raises BlockingIOError where another holds it and *wait* is false. Several hold a *shared* lock at once.
    """
    if fcntl is not None:
        fcntl.flock(stream, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        return
    while not _taken(stream.fileno(), shared):
        if not wait:
            raise BlockingIOError(errno.EAGAIN, "another process holds the lock")
        time.sleep(PAUSE)


def release(stream: IO[Any]) -> None:
    """Give a lock back at once: Windows may take its time when a file is only closed."""
    if fcntl is not None:
        fcntl.flock(stream, fcntl.LOCK_UN)
    elif not _range(stream.fileno(), "LK_UNLCK", 0, SLOTS):
        any(_range(stream.fileno(), "LK_UNLCK", slot, 1) for slot in range(SLOTS))


def _taken(handle: int, shared: bool) -> bool:
    if not shared:
        return _range(handle, "LK_NBLCK", 0, SLOTS)
    return any(_range(handle, "LK_NBLCK", slot, 1) for slot in range(SLOTS))


def _range(handle: int, mode: str, slot: int, count: int) -> bool:
    """Lock or unlock *count* bytes; False where that is refused. The place in the file stays as it was."""
    import msvcrt

    windows: Any = msvcrt
    before = os.lseek(handle, 0, os.SEEK_CUR)
    try:
        os.lseek(handle, AT + slot, os.SEEK_SET)
        windows.locking(handle, getattr(windows, mode), count)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EDEADLK):
            raise
        return False
    finally:
        os.lseek(handle, before, os.SEEK_SET)
    return True


def replace(scratch: Path, target: Path) -> Path:
    """Put *scratch* in the place of *target*; on Windows once those who read *target* have closed it."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return scratch.replace(target)
        except PermissionError:
            if not WINDOWS or time.monotonic() > end:
                raise
            time.sleep(PAUSE)


def remove_held(path: Path, stream: IO[Any]) -> None:
    """Remove a file whose lock is held. Windows wants it closed for that, and refuses where another has opened it."""
    if WINDOWS:
        stream.close()
    path.unlink(missing_ok=True)


def libc() -> Any:
    """The C library of Linux; None elsewhere."""
    return ctypes.CDLL(None) if sys.platform == "linux" and not WINDOWS else None


def swapped(first: Path, second: Path) -> bool:
    """Swap two names in one step, where the system can (Linux): there is then no moment without either."""
    swap = getattr(libc(), "renameat2", None)
    names = AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second)
    return swap is not None and swap(*names, RENAME_EXCHANGE) == 0


def flush(handle: int) -> None:
    """Return when the bytes of an open file are on the disk."""
    getattr(os, "fdatasync", os.fsync)(handle)  # Linux alone can leave the times of the file out


def flush_below(folder: Path) -> None:
    """Return when all files below *folder* are on the disk."""
    if hasattr(os, "sync"):
        os.sync()  # one call: hundreds of small files would wait for the disk one by one
        return
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("r+b") as stream:
                os.fsync(stream.fileno())


def flush_names(folder: Path) -> None:
    """Make renames in *folder* survive a power cut; Windows opens no folder, and NTFS keeps a journal of names."""
    if WINDOWS:
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def reserve(handle: int, size: int) -> bool:
    """Take *size* bytes of the disk for an open file; False where system or file system cannot. Raises OSError."""
    try:
        os.posix_fallocate(handle, 0, size)
    except AttributeError:  # macOS, Windows
        return False
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        return False
    return True


def lives(pid: int) -> bool:
    """Whether a process of this number runs, other than this one."""
    if pid == os.getpid():
        return False
    if WINDOWS:  # where os.kill would end it
        return _active(pid)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _active(pid: int) -> bool:
    kernel: Any = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    kernel.OpenProcess.restype = ctypes.c_void_p
    if not (found := kernel.OpenProcess(QUERY, False, pid)):
        return bool(ctypes.get_last_error() == ACCESS_DENIED)  # type: ignore[attr-defined]  # another user's
    handle, status = ctypes.c_void_p(found), ctypes.c_ulong()
    kernel.GetExitCodeProcess(handle, ctypes.byref(status))
    kernel.CloseHandle(handle)
    return status.value == STILL_ACTIVE


class _Memory(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS of psapi.h."""

    _fields_ = [("cb", ctypes.c_ulong), ("PageFaultCount", ctypes.c_ulong)] + [
        (name, ctypes.c_size_t)
        for name in (
            "PeakWorkingSetSize",
            "WorkingSetSize",
            "QuotaPeakPagedPoolUsage",
            "QuotaPagedPoolUsage",
            "QuotaPeakNonPagedPoolUsage",
            "QuotaNonPagedPoolUsage",
            "PagefileUsage",
            "PeakPagefileUsage",
        )
    ]


def peak_memory_mb() -> int:
    """The largest resident set this process has had so far, in MiB."""
    if resource is not None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak // (2**20 if sys.platform == "darwin" else 2**10)  # macOS tells bytes, Linux KiB
    library: Any = ctypes.WinDLL  # type: ignore[attr-defined]
    found = _Memory(cb=ctypes.sizeof(_Memory))
    own = ctypes.c_void_p(library("kernel32").GetCurrentProcess())
    library("psapi").GetProcessMemoryInfo(own, ctypes.byref(found), found.cb)
    return int(found.PeakWorkingSetSize) // 2**20


def resident_mb() -> int:
    """The resident set of this process now, in MiB; the largest so far where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_memory_mb()
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


def available_memory_mb(root: Path = Path("/")) -> int | None:
    """MiB that a process may still take, by the machine and by every control group around it; None where not Linux.

    What the kernel only keeps for speed counts as free. *root* holds proc and sys/fs/cgroup.
    """
    try:
        told = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    free = [int(line.split()[1]) // 1024 for line in told if line.startswith("MemAvailable")]
    free += [left for folder in _groups(root) if (left := _left_in(folder)) is not None]
    return min(free, default=None)


def _groups(root: Path) -> list[Path]:
    """The folders of the control groups that this process is in, outwards, of either version."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return []
    found = []
    for _, kinds, path in (line.split(":", 2) for line in lines):
        if kinds and "memory" not in kinds.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("memory" if kinds else "")
        own = base / path.lstrip("/")
        found += [folder for folder in (own, *own.parents) if folder.is_relative_to(base)]
    return found


def _left_in(folder: Path) -> int | None:
    """MiB left in one control group; None where it has no limit."""
    for limit, used, reclaimable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, taken = (int((folder / name).read_text()) for name in (limit, used))
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # not this version, or `max`
            continue
        return (most - taken + int(stat.get(reclaimable, 0))) // 2**20
    return None


def end_tree(process: "subprocess.Popen[str]") -> None:
    """Kill a process that began a session of its own, and those that it has started."""
    if WINDOWS:
        with contextlib.suppress(FileNotFoundError):
            subprocess.run(["taskkill", "/T", "/F", "/PID", str(process.pid)], capture_output=True, check=False)
        process.kill()
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def die_with_parent() -> None:
    """Called in a new process, before its program begins: Linux kills it when the process that started it ends."""
    libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


# For subprocess's preexec_fn, which Windows refuses.
BEFORE = die_with_parent if sys.platform == "linux" and not WINDOWS else None


def end_with_parent() -> None:
    """End this process when its standard input ends: the other end was the parent's. On every system."""

    def watch() -> None:
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def become(command: list[str]) -> None:
    """Run *command* in place of this process; on Windows as its child, and end as it ends."""
    if not WINDOWS:
        os.execv(command[0], command)
    process = subprocess.Popen(command, env={**os.environ, PARENT: str(os.getpid())})
    while True:
        try:
            sys.exit(process.wait())
        except KeyboardInterrupt:  # the child has heard it as well, and says what follows
            continue


def heed_parent() -> None:
    """Be told to end (SIGTERM) when the process ends in whose place this one runs: who ends that means this one."""
    if not (parent := os.environ.pop(PARENT, "")):
        return

    def watch() -> None:
        while lives(int(parent)):
            time.sleep(10 * PAUSE)
        signal.raise_signal(signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def in_utf8(module: str) -> None:
    """Start *module* again with UTF-8 as the encoding of files, where the system has another one, as Windows does."""
    heed_parent()
    if sys.flags.utf8_mode or locale.getpreferredencoding(False).lower().replace("-", "") == "utf8":
        return
    os.environ["PYTHONUTF8"] = "1"  # for the processes that it starts, too
    become([sys.executable, "-X", "utf8", "-m", module, *sys.argv[1:]])


def collect_rarely() -> None:
    """Let Python look for rubbish less often in this process: what torch and the exporter make by the hundred thousand
    is none, and to look through it again and again takes time of a short training."""
    gc.set_threshold(10_000, 20, 20)
