"""What the readers of layouts share: what lies in a folder, the test side, and the error of a wrong layout."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from components.core.errors import DataError
from components.core.filenames import hidden, printable
from components.datasets.rows import Row
from components.pictures.decoding import SUFFIXES
from components.pictures.masks import SEPARATOR

TEST_EVERY = 5  # of the normals sorted by file name, index mod 5 == 0 goes to the test side
SHOWN = 6  # names that an error lists


def folders(path: Path) -> list[Path]:
    """The folders directly below *path*, sorted; none where it is no folder."""
    return sorted(p for p in path.iterdir() if p.is_dir() and not hidden(p.name)) if path.is_dir() else []


def images(path: Path) -> list[Path]:
    """The picture files directly below *path*, sorted; none where it is no folder."""
    files = (p for p in path.iterdir() if p.is_file() and not hidden(p.name)) if path.is_dir() else ()
    return sorted(p for p in files if p.suffix.lower() in SUFFIXES)


def name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def joined(root: Path, masks: Iterable[Path]) -> str | None:
    """A row's ``mask`` of several files."""
    return SEPARATOR.join(name(root, mask) for mask in masks) or None


def with_test_side(normals: Iterable[Row]) -> list[Row]:
    """*normals* sorted by file name, every fifth of them on the test side."""
    ordered = sorted(normals, key=lambda row: PurePosixPath(row.image_id).name)
    return [replace(row, role="train" if i % TEST_EVERY else "test") for i, row in enumerate(ordered)]


def wrong(root: Path, expected: str) -> DataError:
    """The error of a folder that is not laid out as published: what was expected, and what lies there."""
    return DataError(f"{printable(str(root))}: expected {expected}; found {_held(root)}")


def _held(root: Path) -> str:
    if not root.is_dir():
        return "no such folder"
    files = sorted(p.name for p in root.iterdir() if p.is_file() and not hidden(p.name))
    parts = [("folders", [p.name for p in folders(root)]), ("files", files)]
    return " and ".join(f"the {what} {_some(names)}" for what, names in parts if names) or "nothing"


def _some(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(map(printable, names[:SHOWN])) + (f" and {rest} more" if rest > 0 else "")


def inside(text: str, where: Path) -> str:
    """A path that the list *where* names, below its data set's folder. Raises DataError for one that leaves it."""
    path = PurePosixPath(text.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise DataError(f"{where}: names {printable(text)!r}, which is no path below the data set; take the line out")
    return path.as_posix()
