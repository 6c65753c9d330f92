"""What reviewers said of images: the last word counts."""

from collections.abc import Sequence

from components.core.records import of_today
from components.scorelog import table
from components.scorelog.table import Record
from components.storage import Store

GIVEN = ("defect", "false_alarm", "withdrawn")


def read_labels(store: Store, pending: Sequence[Record] = (), since: str = "") -> dict[str, Record]:
    """The last label of each record, from the store and from what is *pending* on local disk.

    Those of days before *since* (ISO time) are not read: nobody labels a record before it was scored.
    """
    found = [of_today(record) for record in pending]
    for source in table.sources(store, table.LABELS):
        found += table.newest_first(store, table.LABELS, source, since)
    return {label["record_id"]: label for label in sorted(found, key=lambda label: label["labelled_at"])}
