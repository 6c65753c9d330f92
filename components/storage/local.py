"""A folder as object store."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from components.artefacts import write_flushed
from components.errors import StorageError

PART = ".part"


class LocalStore:
    """Objects are files; each is written aside, flushed to disk and renamed."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).resolve()
        self.address = str(self.root)

    def _path(self, key: str) -> Path:
        path = (self.root / key).resolve()
        if not path.is_relative_to(self.root) or path == self.root:
            raise StorageError(f"{key!r}: is not a key of the store {self.root}; keys stay below it")
        return path

    def put(self, key: str, data: bytes) -> None:
        path = self._path(key)
        scratch = self._write_aside(path, data)
        scratch.replace(path)
        _flush_folder(path.parent)

    def put_new(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        scratch = self._write_aside(path, data)
        try:
            os.link(scratch, path)
        except FileExistsError:
            return False
        finally:
            scratch.unlink()
        _flush_folder(path.parent)
        return True

    def _write_aside(self, path: Path, data: bytes) -> Path:
        scratch = path.with_name(f".{uuid.uuid4().hex}{PART}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_flushed(scratch, data)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written ({error}); check the disk and its rights") from error
        return scratch

    def get(self, key: str) -> bytes:
        try:
            return self._path(key).read_bytes()
        except OSError as error:
            raise StorageError(f"{self.root}: no readable object {key} ({error.strerror})") from error

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def keys(self, prefix: str = "") -> Iterator[str]:
        # Only the folder that the prefix names is walked, so that reading one partition never lists the others.
        start = self.root / prefix.rpartition("/")[0]
        found = (p.relative_to(self.root).as_posix() for p in start.rglob("*") if p.is_file() and p.suffix != PART)
        return iter(sorted(key for key in found if key.startswith(prefix)))

    def folders(self, prefix: str) -> list[str]:
        at = self.root / prefix
        return sorted(p.name for p in at.iterdir() if p.is_dir()) if at.is_dir() else []

    def delete(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
