"""A folder as object store."""

import errno
import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from components.core.artefacts import file_hash, write_flushed
from components.core.errors import ObjectError, StorageError
from components.core.filenames import called, stored
from components.core.system import flush_names, replace
from components.storage.settling import settled

log = logging.getLogger("loupe")
PART = ".part"
ONE_OBJECT = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG}


class LocalStore:
    """Objects are files; each is written aside, flushed to disk and renamed."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()
        self.address = str(self.root)

    def _path(self, key: str) -> Path:
        # By its words, not by what it links to: a link in the store is somebody's wish, and is removed as a link.
        if any(part in ("", ".", "..") or "\0" in part for part in key.split("/")):
            raise ObjectError(f"{key!r}: is not a key of the store {self.root}; keys stay below it")
        return self.root.joinpath(*map(stored, key.split("/")))

    def _key(self, path: Path) -> str:
        return "/".join(map(called, path.relative_to(self.root).parts))

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        scratch = self._write_aside(path, data)
        try:
            replace(scratch, path)
            flush_names(path.parent)
        except OSError as error:
            scratch.unlink(missing_ok=True)
            raise _unwritable(path, error) from error

    def put_new(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        scratch = self._write_aside(path, data)
        try:
            os.link(scratch, path)
            flush_names(path.parent)
        except FileExistsError:
            return False
        except OSError as error:
            raise _unwritable(path, error) from error
        finally:
            scratch.unlink()
        return True

    def _write_aside(self, path: Path, data: bytes) -> Path:
        scratch = path.with_name(f".{uuid.uuid4().hex}{PART}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_flushed(scratch, data)
        except OSError as error:
            raise _unwritable(path, error) from error
        return scratch

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except OSError as error:
            kind = ObjectError if error.errno in ONE_OBJECT and self.root.is_dir() else StorageError
            raise kind(f"{self.root}: no readable object {key} ({error.strerror})") from error

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def keys(self, prefix: str = "") -> Iterator[str]:
        # Only the folder that the prefix names is walked, so that reading one partition never lists the others.
        folder = prefix.rpartition("/")[0]
        start = self._path(folder) if folder else self.root
        found = _walk(str(start), f"{folder}/" if folder else "", ())
        return iter(sorted(key for key in found if key.startswith(prefix)))

    def folders(self, prefix: str) -> list[str]:
        at = self._path(prefix.rstrip("/")) if prefix else self.root
        return sorted(called(p.name) for p in at.iterdir() if p.is_dir()) if at.is_dir() else []

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def settled(self, keys: Iterable[str], seconds: float, limit: int) -> list[str]:
        found = settled((self._path(key) for key in keys), seconds, limit)
        return [self._key(path) for path in found]

    def remove_unchanged(self, key: str, sha256: str) -> bool:
        # Renamed first, so that whoever writes this name meanwhile makes another file, and none is deleted unread.
        path = self._path(key)
        aside = path.with_name(f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}{PART}")
        try:
            if os.path.lexists(aside):  # a process was killed here
                _decide(aside, path, sha256)
            if path.is_dir() or not os.path.lexists(path):
                return False
            path.rename(aside)
            return _decide(aside, path, sha256)
        except FileNotFoundError:  # somebody took it away meanwhile
            return False
        except OSError as error:
            raise StorageError(f"{path}: cannot be taken away ({error}); check the rights of its folder") from error


def _decide(aside: Path, path: Path, sha256: str) -> bool:
    """Delete *aside* if these are its bytes; else put it back, beside what has come to its place meanwhile."""
    digest = file_hash(aside)
    if digest != sha256:
        for target in (path, path.with_name(f"{digest[:8]}-{path.name[-50:]}")):
            if _linked(aside, target):
                break
        else:
            raise StorageError(f"{aside}: cannot be put back as {path.name}; rename it by hand")
    aside.unlink()
    return digest == sha256


def _linked(aside: Path, target: Path) -> bool:
    """Whether *target* is a second name of *aside*, now or from before a crash."""
    try:
        how = {"follow_symlinks": False} if os.link in os.supports_follow_symlinks else {}
        os.link(aside, target, **how)
    except FileExistsError:
        return target.exists() and target.samefile(aside)
    return True


def _walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """The keys of all files below *folder*, through links as well, but never round in a circle."""
    try:
        state = os.stat(folder)  # noqa: PTH116
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError:
        log.warning("%s: is left out; this user may not read it", folder)
        return
    except OSError as error:
        raise StorageError(f"{folder}: cannot be listed ({error}); check the disk or the share") from error
    here = (state.st_dev, state.st_ino)
    if here in above:
        return
    for entry in entries:
        if _is(entry.is_dir):
            yield from _walk(entry.path, f"{prefix}{called(entry.name)}/", (*above, here))
        elif not entry.name.endswith(PART) and _is(entry.is_file):
            yield prefix + called(entry.name)


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link in a circle
        return False


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path}: cannot be written ({error}); check the disk and its rights")
