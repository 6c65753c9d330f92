"""Where the files of a version lie, said so that a project can be moved or copied.

Nothing that is stored names the place of the project. MLflow's scheme ``mlflow-artifacts:/`` stands for the folder of
whoever keeps the files: here the registry's own, wherever it is today. Registries of older versions hold whole
addresses such as ``file:///home/me/line/registry/artefacts/<run>/artifacts/bundle``; of these only what begins with the
run counts, so they open wherever they were moved to, and never read the old place.
"""

import os
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from components.core.errors import RegistryError

HOME = "mlflow-artifacts:/"
OURS = ("", "file", "mlflow-artifacts")  # schemes of what lies in a folder of this machine


def is_local(address: str | None) -> bool:
    """Whether artefacts kept at *address* lie in a folder: none named, a path or a file: address."""
    return _scheme(address or "") in OURS


def folder_of(address: str) -> Path:
    """The folder that a local address of the settings names."""
    return Path(urlsplit(address).path) if _scheme(address) == "file" else Path(address)


def below(location: str, run: str) -> PurePosixPath | None:
    """What *location* says below the folder of all runs, beginning with *run*; None where it is in another store."""
    if not is_local(location):
        return None
    parts = location.rstrip("/").split("/")
    if run not in parts or ".." in parts:
        raise RegistryError(f"{location}: names no files of run {run}; register the model again")
    return PurePosixPath(*parts[parts.index(run) :])


def _scheme(address: str) -> str:
    found = urlsplit(address).scheme
    return "" if len(found) == 1 else found  # the letter of a drive


def noted(path: Path, folder: Path) -> str:
    """A file of the project as it is stored in the registry at *folder*: relative to it, with slashes."""
    return Path(os.path.relpath(path.resolve(), folder)).as_posix()


def place_of(note: str, folder: Path, artefacts: Path) -> Path:
    """The file that a note names, for a registry that is at *folder* today.

    Older versions noted the whole path: of one that is no more, the part below a folder of the name of *artefacts*, the
    project's folder of artefacts, is looked for there.
    """
    path = Path(note)
    if not path.is_absolute():
        return Path(os.path.normpath(folder / path))
    parts = path.parts
    for start in (number + 1 for number, part in enumerate(parts) if part == artefacts.resolve().name):
        moved = artefacts.joinpath(*parts[start:])
        if moved.exists():
            return moved
    return path
