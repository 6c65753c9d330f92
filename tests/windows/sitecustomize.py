"""Python as Windows has it, as far as Linux can play it: with this folder on PYTHONPATH every process is like that.

Modules, functions and signals that only POSIX has are absent; locks are msvcrt's, of ranges of bytes; an open file is
neither renamed nor removed; names that Windows refuses are refused. Not played: drive letters, backslashes, code pages
of a terminal, handles that stay open after a process has died.
"""

import ctypes
import errno
import fcntl
import os
import re
import resource
import shutil
import signal
import struct
import subprocess  # noqa: F401  # which would take msvcrt for the sign of Windows
import sys
import types
from pathlib import Path

HERE = os.environ.get("LIKE_WINDOWS_BELOW", "/nowhere")  # the folder whose files obey Windows' rules
ABSENT_MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "pty", "tty", "syslog")
ABSENT_OS = (
    "fork",
    "forkpty",
    "killpg",
    "setsid",
    "getpgid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "posix_fallocate",
    "fdatasync",
    "sync",
    "mkfifo",
    "chown",
    "sched_getaffinity",
    "getloadavg",
    "O_DIRECTORY",
    "O_NOFOLLOW",
)
ABSENT_SIGNALS = ("SIGKILL", "SIGHUP", "SIGSTOP", "SIGCONT", "SIGUSR1", "SIGUSR2", "SIGALRM", "setitimer", "alarm")
REFUSED = re.compile(r'[<>:"|?*\x00-\x1f]|[. ]$|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.IGNORECASE)
OFD_SETLK = 37  # locks that belong to an opened file, as Windows' do, and not to the process


def ours(depth: int = 2) -> bool:
    """Whether Loupe calls; the libraries below it know that this is Linux."""
    return str(sys._getframe(depth).f_globals.get("__name__", "")).startswith(("components", "flows"))


class Msvcrt(types.ModuleType):
    """``msvcrt``: locking from the place that the file stands at, by ranges; only the very same range is unlocked."""

    LK_UNLCK, LK_LOCK, LK_NBLCK = 0, 1, 2

    def __init__(self):
        super().__init__("msvcrt")
        self.again, self.ranges = {}, {}

    def locking(self, handle, mode, count):
        start = os.lseek(handle, 0, os.SEEK_CUR)
        assert start >= os.fstat(handle).st_size, "others could no longer read what is locked"
        assert start + count < 2**31, "Windows' C library does not reach as far"
        held = self.ranges.setdefault(handle, set())
        if mode == self.LK_UNLCK and (start, count) not in held:
            raise PermissionError(errno.EACCES, "this very range is not locked")
        kind = fcntl.F_UNLCK if mode == self.LK_UNLCK else fcntl.F_WRLCK
        try:
            wanted = struct.pack("hhqqi4x", kind, os.SEEK_SET, start, count, 0)  # struct flock
            fcntl.fcntl(self.writable(handle), OFD_SETLK, wanted)
        except BlockingIOError:
            raise PermissionError(errno.EACCES, "Permission denied") from None
        (held.discard if mode == self.LK_UNLCK else held.add)((start, count))

    def writable(self, handle):
        """Linux locks no file that is open to read alone: it is opened again, until its handle is another file's."""
        for old, (again, inode) in list(self.again.items()):
            try:
                if os.fstat(old).st_ino == inode:
                    continue
            except OSError:
                pass
            os.close(again)
            del self.again[old]
        if fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY:
            return handle
        if handle not in self.again:
            self.again[handle] = os.open(f"/proc/self/fd/{handle}", os.O_RDWR), os.fstat(handle).st_ino
        return self.again[handle][0]


class WinDLL:
    """The calls of kernel32 and psapi that Loupe makes."""

    def __init__(self, name, use_last_error=False):
        self.OpenProcess = lambda rights, inherit, pid: pid if Path(f"/proc/{pid}").exists() else 0

    def GetExitCodeProcess(self, handle, status):
        status._obj.value = 259

    def CloseHandle(self, handle):
        assert handle.value

    def GetCurrentProcess(self):
        return -1

    def GetProcessMemoryInfo(self, handle, found, size):
        assert size == ctypes.sizeof(found._obj)
        found._obj.PeakWorkingSetSize = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def like_windows():
    sys.modules |= dict.fromkeys(ABSENT_MODULES) | {"msvcrt": Msvcrt()}
    ctypes.__getattr__ = for_us({"WinDLL": WinDLL, "get_last_error": lambda: 0})
    for module, names in ((os, ABSENT_OS), (signal, ABSENT_SIGNALS)):
        for name in names:
            vars(module).pop(name, None)
    shutil._use_fd_functions = False  # it opens folders
    for name in ("rename", "replace", "unlink", "remove", "open", "kill", "symlink"):
        setattr(os, name, globals()[f"_{name}"](getattr(os, name)))
    ctypes.CDLL = cdll(ctypes.CDLL)
    sys.addaudithook(names_are_windows)


def for_us(extra):
    """What ctypes has on Windows, for Loupe alone: colorama takes it for a console."""

    def missing(name):
        if name in extra and ours():
            return extra[name]
        raise AttributeError(name)

    return missing


def below(path):
    return isinstance(path, str | os.PathLike) and str(Path(path).absolute()).startswith(HERE)


def in_use(path):
    """Whether a process of this machine that plays Windows has the file, or one below the folder, open or mapped."""
    return below(path) and any(Path(path).absolute() in (found, *found.parents) for found in opened())


def opened():
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"LIKE_WINDOWS_BELOW={HERE}".encode() not in (process / "environ").read_bytes():
                continue
            handles = [handle.readlink() for handle in (process / "fd").iterdir()]
            mapped = [line.split(maxsplit=5)[5] for line in (process / "maps").read_text().splitlines() if HERE in line]
        except (OSError, IndexError):
            continue
        yield from map(Path, (place for place in (*handles, *mapped) if str(place).startswith(HERE)))


def refusing(real, *which):
    """*real*, that refuses where an argument of the numbers *which* is in use."""

    def call(*places, **more):
        for number in which:
            if in_use(places[number]):
                raise PermissionError(errno.EACCES, "The process cannot access the file", str(places[number]))
        return real(*places, **more)

    return call


def _rename(real):
    def rename(source, target, **more):
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, "Cannot create a file when that file already exists", str(target))
        return refusing(real, 0)(source, target, **more)

    return rename


def _replace(real):
    return refusing(real, 0, 1)


def _unlink(real):
    return refusing(real, 0)


_remove = _unlink


def _open(real):
    def open_file(path, *more, **named):
        if below(path) and Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *more, **named)

    return open_file


def _kill(real):
    def kill(pid, number):
        assert not ours() or number, "os.kill(pid, 0) is Ctrl-C there"
        return real(pid, number)

    return kill


def _symlink(real):
    def symlink(source, target, **more):
        if below(target):
            raise OSError(errno.EPERM, "A required privilege is not held by the client", str(target))
        return real(source, target, **more)

    return symlink


def cdll(real):
    class CDLL(real):
        def __init__(self, name, *more, **named):
            if name is None and ours():
                raise TypeError("bad argument type for built-in operation")
            super().__init__(name, *more, **named)

    return CDLL


def names_are_windows(event, arguments):
    if event in ("open", "os.mkdir", "os.rename") and below(arguments[0]):
        made = arguments[1 if event == "os.rename" else 0]
        for part in Path(made).absolute().relative_to(HERE).parts:
            if REFUSED.search(part):
                raise OSError(errno.EINVAL, "The filename, directory name, or volume label syntax is incorrect", made)


if HERE != "/nowhere":
    like_windows()
