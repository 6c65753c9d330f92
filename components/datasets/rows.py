"""What a data set's folder says: one row per picture, how names are to be read, and what was found beside."""

from dataclasses import dataclass, field
from typing import Any, Literal

GOOD = "good"


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
