"""Whose a record is: one store holds those of several models, and what is said of one is never another's.

A record names the bundle that scored it, and since 2026-11 the registered name that it was scored under.
"""

from collections.abc import Mapping
from typing import Any

NAME = "registered"  # column of LOG_COLUMNS; null where a bundle was used that no registry gave, or by older versions


def scored_by(record: Mapping[str, Any], version: str, name: str | None) -> bool:
    """Whether the bundle *version* scored it, for the model *name* where the record and the reader tell one."""
    return record["model_version"] == version and (name is None or record.get(NAME) in (None, name))


def of_product(record: Mapping[str, Any], version: str, name: str | None, dataset: str) -> bool:
    """Whether it shows the product of a model: scored by any version of the same name.

    Where the record or the reader tells no name, by this bundle; of a record without a name, of the same data set too:
    older versions told no more of it.
    """
    told = record.get(NAME)
    if told is not None and name is not None:
        return bool(told == name)
    return record["model_version"] == version or (told is None and record["dataset"] == dataset)
