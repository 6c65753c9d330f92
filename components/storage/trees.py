"""Folders in an object store: each file under its SHA-256, and a list of names; what is there is not sent again."""

import hashlib
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TypeVar

from components.core.errors import ObjectError, StorageError
from components.storage.base import Store

T = TypeVar("T")
FILES, TREES = "files", "trees"
AT_ONCE = 8  # files on their way: a small one is mostly waiting


def send(store: Store, folder: Path, prefix: str) -> str:
    """Put all files below *folder* into *store*; returns the SHA-256 that ``fetch`` asks for.

    Hidden files and folders are left out. Raises StorageError.
    """
    known: set[str] = set()
    names = {path.relative_to(folder).as_posix(): path for path in visible(folder)}
    digests = at_once(lambda path: put_file(store, path, f"{prefix}/{FILES}", known), names.values())
    listed = json.dumps(dict(zip(names, digests, strict=True)), sort_keys=True).encode()
    tree = hashlib.sha256(listed).hexdigest()
    store.put(f"{prefix}/{TREES}/{tree}.json", listed)
    return tree


def fetch(store: Store, tree: str, out: Path, prefix: str) -> None:
    """Write the files of *tree* below *out*. Raises StorageError, also where one has other bytes than it was sent."""
    listed = checked(store, f"{prefix}/{TREES}/{tree}.json", tree)
    get_files(store, json.loads(listed), out, f"{prefix}/{FILES}")


def visible(folder: Path) -> list[Path]:
    """The files below *folder* of which no part of the name begins with a dot; sorted."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))


def put_file(store: Store, path: Path, prefix: str, known: set[str]) -> str:
    """Put one file under its SHA-256, which is returned; *known* are those that are there, and is added to."""
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest not in known and not store.exists(f"{prefix}/{digest}"):
        store.put(f"{prefix}/{digest}", content)
    known.add(digest)
    return digest


def get_files(store: Store, names: dict[str, str], out: Path, prefix: str) -> None:
    """Write files below *out*, each of *names* with its SHA-256. Raises StorageError, before anything is written."""
    for name in names:
        if PurePosixPath(name).is_absolute() or any(part in ("..", "") for part in name.split("/")) or "\\" in name:
            raise StorageError(f"{store.address}: {name!r} leads out of its folder; somebody has changed the store")

    def write(one: tuple[str, str]) -> None:
        name, digest = one
        content = checked(store, f"{prefix}/{digest}", digest)
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    at_once(write, names.items())


def checked(store: Store, key: str, digest: str) -> bytes:
    """The bytes of an object that is called after its SHA-256. Raises StorageError."""
    content = store.get(key)
    if hashlib.sha256(content).hexdigest() != digest:
        raise ObjectError(f"{store.address}: {key} is damaged; delete it, and what made it sends it again")
    return content


def at_once(call: Callable[..., T], given: Iterable[object]) -> list[T]:
    """*call* of each, several at a time, in order; the first error is raised."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(call, given))
