"""What reviewers said of images: the last word counts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from components.core.records import of_today
from components.scorelog import table
from components.scorelog.table import Record
from components.storage import Store

DEFECT = "defect"
GIVEN = (DEFECT, "false_alarm", "withdrawn")


def read_labels(store: Store, pending: Sequence[Record] = (), since: str = "") -> dict[str, Record]:
    """The last label of each record, from the store and from what is *pending* on local disk.

    Those of days before *since* (ISO time) are not read: nobody labels a record before it was scored.
    """
    found = [of_today(record) for record in pending]
    for source in table.sources(store, table.LABELS):
        found += table.newest_first(store, table.LABELS, source, since)
    return {label["record_id"]: label for label in sorted(found, key=lambda label: label["labelled_at"])}


def records_of(store: Store, labels: Mapping[str, Mapping[str, Any]]) -> Iterator[Record]:
    """The labelled records; no day is read that is older than all of them."""
    for source in sorted({str(v["source"]) for v in labels.values()}):
        left = {key for key, label in labels.items() if label["source"] == source}
        for record in table.newest_first(store, table.SCORES, source):
            if record["record_id"] in left:
                left.discard(record["record_id"])
                yield record
            if not left:
                break
