"""One picture that was handed to several services, or twice to one, is one record when the log is read.

Who hands it over names it by a key; the record's id follows from source and key alone. Services do not ask each other,
so that none waits for another or for the store: both write the record, and readers and compaction take it once.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

KEYED = "k"  # what ids that follow from a key begin with; the others are random, or hashes in hexadecimal


def identity(source: str, key: str, number: int) -> str:
    """The record id of the picture *number* of a request with *key*."""
    return KEYED + hashlib.sha256(f"{source}\n{key}\n{number}".encode()).hexdigest()[:31]


class Once:
    """Lets each keyed score record through once; a record may have many *labels*, the rows of which all pass.

    It remembers two days: a picture may be handed over twice around midnight, not days apart.
    """

    def __init__(self, labels: bool = False) -> None:
        self.labels = labels
        self._before, self._now = set[str](), set[str]()

    def fresh(self, record: Mapping[str, Any]) -> bool:
        """Whether *record* has not come yet; records without a key are not remembered."""
        name = record["record_id"]
        if self.labels or not name.startswith(KEYED):
            return True
        if name in self._now or name in self._before:
            return False
        self._now.add(name)
        return True

    def turn(self) -> None:
        """The next day begins."""
        self._before, self._now = self._now, set()
