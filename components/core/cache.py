"""The place for what can be computed again: the user's cache folder, or the folder that LOUPE_CACHE names."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from components.core.artefacts import STAMP, in_use
from components.core.system import remove_held, take

VARIABLE = "LOUPE_CACHE"
AUTO = "auto"  # train.store: the features lie in the cache folder
MOVES_KEPT = "moves-"  # what files beside the features begin with that hold measured moves (training.pose)
GRAPHS = 64  # exported graphs that are kept, of each sort
SCRATCH = re.compile(rf".+\.{STAMP.pattern}")


def cache_folder() -> Path:
    """Where this user's computed features and logs of broken runs lie."""
    if given := os.environ.get(VARIABLE):
        return Path(given).expanduser().absolute()
    try:
        import platformdirs
    except ImportError:  # a line computer scores without it
        return Path(tempfile.gettempdir()) / "loupe"
    return Path(platformdirs.user_cache_dir("loupe"))


def features_folder(store: str | None) -> Path | None:
    """The folder of features that the setting ``train.store`` means; None where they are not kept."""
    if store is None:
        return None
    return cache_folder() / "features" if store == AUTO else Path(store)


def graphs_folder() -> Path:
    """Where exported graphs lie that another model can take (``export.reused``, ``backbones.frozen``)."""
    return cache_folder() / "exported"


def superseded(entries: Iterable[Path]) -> list[Path]:
    """All but the GRAPHS newest files: a newer Loupe has graphs of its own, and those of the old one are of no use."""
    return sorted(entries, key=lambda path: path.stat().st_mtime)[:-GRAPHS]


def clear_graphs() -> None:
    """Remove what ``graphs_folder`` holds: each graph is exported anew."""
    shutil.rmtree(graphs_folder(), ignore_errors=True)


def contents(folder: Path) -> dict[str, Any]:
    """How many entries a feature store holds, and the bytes of all its files."""
    entries = sum((path / "manifest.json").exists() for path in _listed(folder))
    return {"entries": entries, "bytes": sum(size_of(path) for path in _listed(folder))}


def size_of(path: Path) -> int:
    """The bytes of a file, or of all files below a folder, as far as they are still there."""
    total = 0
    for file in [path] if path.is_file() else path.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size
    return total


def clear(folder: Path) -> None:
    """Remove the features, graphs and measured moves of a store.

    What a running training has mapped stays readable to it. What another process is writing stays, and so does what is
    no part of a store.
    """
    for path in _listed(folder):
        if (path / "manifest.json").exists() or (path.is_dir() and _left_over(path)):
            shutil.rmtree(path, ignore_errors=True)
        elif _is_graph(path) or (path.name.startswith(MOVES_KEPT) and path.suffix == ".json"):
            path.unlink(missing_ok=True)
        elif path.suffix == ".lock":
            _remove_free(path)


def _is_graph(path: Path) -> bool:
    return path.name.lstrip(".").startswith("backbone-") and (path.suffix == ".onnx" or _left_over(path))


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _left_over(path: Path) -> bool:
    """Whether *path* is what a process that is no more was writing."""
    found = SCRATCH.fullmatch(path.name)
    return found is not None and not in_use(found)


def _remove_free(path: Path) -> None:
    with suppress(OSError), path.open() as stream:
        take(stream, wait=False)  # held: somebody waits for features
        remove_held(path, stream)
