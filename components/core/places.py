"""Where things are written: what the machine's refusal means in words, and whether a place can take a result at all."""

import errno
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from components.core.errors import LoupeError, PlaceError, SettingsError

FREE_GB = 1.0  # on the disk of a result: images made, checkpoints, model and bundle of one run
ROOM = "free some space there or choose a place on another disk"
RIGHTS = "choose another place or change its rights"
CUT_OFF = -1  # no number of the system's: numpy only says that it could not write everything
WRITING = {
    CUT_OFF,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
}  # the place is at fault, whatever file is named
ADVICE = {
    CUT_OFF: ("not all of it could be written", ROOM),
    errno.ENOSPC: ("the disk is full", ROOM),
    errno.EDQUOT: ("the disk quota of this user is used up", ROOM),
    errno.EFBIG: (
        "the file would be larger than a file may be here",
        "raise the limit (`ulimit -f`) or choose a disk that takes large files",
    ),
    errno.EROFS: ("the file system is read-only", "choose a place where you may write"),
    errno.EACCES: ("permission is denied", RIGHTS),
    errno.EPERM: ("the operation is not permitted", RIGHTS),
    errno.EMFILE: ("too many files are open", "raise the limit (`ulimit -n`) and start again"),
    errno.ENFILE: ("too many files are open on this machine", "end other programs and start again"),
    errno.ENOENT: ("it is not there", "put it back, or start again if it was there a moment ago"),
    errno.ENOTDIR: ("a part of this path is a file", "give a path whose folders are folders"),
    errno.EEXIST: ("something else of this name is in the way", "remove it or choose another place"),
    errno.EISDIR: ("it is a folder", "give the name of a file"),
    errno.ENAMETOOLONG: ("the name is too long", "give a shorter one"),
    errno.EIO: ("the disk reports an error", "look after the disk, then start again"),
    errno.ESTALE: ("the network drive has lost it", "mount the drive anew and start again"),
}
# Libraries that write for us keep the number in their text only; numpy says how much it could not write.
NUMBER = re.compile(r"(?:os error |errno )(\d+)", re.IGNORECASE)
UNWRITTEN = re.compile(r"\d+ requested and \d+ written")


def refusal(error: BaseException, place: Path | None = None) -> str | None:
    """What the machine refused, where and what to do, in one sentence; None when *error* is nothing of the kind.

    *place* is what was being written, for errors that do not name it.
    """
    number = _number(error)
    if number not in ADVICE:
        return None
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)
    where = place if place and (number in WRITING or named is None) else named
    what, advice = ADVICE[number]
    return f"{where or 'a file'}: {what}; {advice}"


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    if isinstance(error, LoupeError) or not isinstance(error, Exception):
        return None
    text = str(error)
    if found := NUMBER.search(text):
        return int(found[1])
    if UNWRITTEN.search(text):
        return CUT_OFF
    return errno.ENOSPC if "disk is full" in text else None  # SQLite


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what the machine refuses in the block into a PlaceError that names *place*."""
    try:
        yield
    except Exception as error:
        if said := refusal(error, place):
            raise PlaceError(said) from error
        raise


def check_folder(out: Path, data: Path | None, ours: Callable[[Path], bool], what: str) -> None:
    """Raises before any work when *out* cannot become the folder of a result.

    *ours* tells a folder that may be continued or replaced; *data* is the data set, which stays as it is.
    """
    if out.exists() and not out.is_dir():
        raise SettingsError(f"{out}: is a file; give a folder for {what}")
    if data is not None:
        _apart(out.resolve(), data.resolve(), what)
    foreign = [p.name for p in out.iterdir() if not p.name.startswith(".")] if out.is_dir() else []
    if foreign and not ours(out):
        raise SettingsError(f"{out}: holds {sorted(foreign)[0]} and is not {what}; give a new or empty folder")
    check_room(out)


def _apart(out: Path, data: Path, what: str) -> None:
    if out == data:
        raise SettingsError(f"{out}: is the data set itself; give another folder for {what}")
    if data in out.parents:
        raise SettingsError(f"{out}: lies inside the data set {data}; give a folder beside it for {what}")


def check_file(out: Path, inputs: Collection[Path] = ()) -> None:
    """Raises before any work when *out* cannot become a file, or is one of *inputs*."""
    if out.is_dir():
        raise SettingsError(f"{out}: is a folder; give the name of a file")
    if out.exists() and out.resolve() in {path.resolve() for path in inputs}:
        raise SettingsError(f"{out}: is one of the files to read; give the name of another file")
    check_room(out, 0.0)


def _probe(folder: Path) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        error.filename = None  # a name that nobody has asked for; what was to be written is said instead
        raise


def check_room(out: Path, free_gb: float = FREE_GB) -> None:
    """Raises PlaceError when nothing can be written at *out*, or less than *free_gb* is free on its disk."""
    parent = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if out.is_file():
        parent = out.absolute().parent
    with writing(out):
        _probe(parent)
    if (free := shutil.disk_usage(parent).free / 1e9) < free_gb:
        raise PlaceError(f"{out}: {free:.1f} GB are free on its disk, {free_gb:g} GB are needed; {ROOM}")


def bundle_in(place: Path) -> Path:
    """The bundle in a run's folder, which may be named in its place; *place* itself where it is none of a run."""
    inside = place / "bundle"
    return inside if (inside / "manifest.json").exists() and not (place / "manifest.json").exists() else place
