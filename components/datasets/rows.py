"""What a data set's folder says: one row per picture, how names are to be read, and what was found beside."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from components.core.errors import DataError

GOOD = "good"
WHOLE = "."  # among the names of good: the folder itself holds good pictures, and nothing else


@dataclass(frozen=True)
class Row:
    """One image as its data set describes it; paths are POSIX, below the data set's folder.

    *mask* and *mask_rule* are as in ``components.pictures.masks``; an adapter leaves the rule to the manifest.
    """

    image_id: str
    group: str
    label: str
    defect: str
    role: str
    mask: str | None = None
    mask_rule: str | None = None


@contextmanager
def read_lines(table: Path) -> Iterator["csv.DictReader[str]"]:
    """The lines of a CSV file by its columns. Raises DataError for what is no text, or none that CSV can be read of."""
    with table.open(newline="", encoding="utf-8-sig") as stream:
        try:
            yield csv.DictReader(stream)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{table}: is no CSV in UTF-8 ({error}); export it again") from error


@dataclass(frozen=True)
class Naming:
    """Folders that hold good pictures beside ``good``, folders that hold defects though they do not sound so, and
    whether the first folder below one of them is a picture's group."""

    good: tuple[str, ...] = (GOOD,)
    defect: tuple[str, ...] = ()
    groups: Literal["none", "folder"] = "none"

    @property
    def normals(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((GOOD, *self.good)))


DEFAULT = Naming()


@dataclass(frozen=True)
class Listed:
    """The rows of a folder, and *notes* for people: what was taken, what was not and why."""

    rows: list[Row]
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Adapter:
    """*rows* lists a native folder; *fetch* builds that folder where the bytes can be had without a source.

    *read* lists by names that the user may declare, and takes notes. *unpack* gives what writes the native folder from
    published files that hold many pictures each; None where a folder holds no such files. The rest is for people:
    *source* is who published the set, *layout* what its folder must hold, *protocol* what is learned, tested and left
    out, *counts* what is published of it, by the names of ``counted``. *clips*: its pictures are frames of clips.
    """

    rows: Callable[[Path], list[Row]]
    licence: str
    fetch: Callable[[Path], None] | None = None
    read: Callable[[Path, Naming], Listed] | None = None
    unpack: Callable[[Path], Callable[[Path], None] | None] | None = None
    source: str = ""
    layout: str = ""
    protocol: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    clips: bool = False


TRAIN, TEST, NORMAL, ANOMALOUS, GROUPS = "training normals", "test normals", "normals", "anomalous", "groups"


def counted(rows: Sequence[Row]) -> dict[str, int]:
    """How many rows are what: the counts that are published of sets."""
    sides = Counter((row.label, row.role) for row in rows)
    train, test = sides["normal", "train"], sides["normal", "test"]
    bad = sum(row.label == "anomalous" for row in rows)
    groups = len({row.group for row in rows})
    return {TRAIN: train, TEST: test, NORMAL: train + test, ANOMALOUS: bad, GROUPS: groups}
