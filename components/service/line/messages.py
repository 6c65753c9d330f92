"""One message for each decision, the same for every output: what was decided, how surely, where, of which part."""

from collections.abc import Mapping
from typing import Any

from components.core.records import TRACE_COLUMNS
from components.pictures.regions import of_text

Message = dict[str, Any]
PICTURE, PART = "picture", "part"
NORMAL, ANOMALOUS, ERROR = "normal", "anomalous", "error"
COPIED = ("decision", "p_value", "score", "threshold", "source", "image_id", "group", *TRACE_COLUMNS)


def of_record(record: Mapping[str, Any], name: str) -> Message:
    """The message of a scored picture; *name* is that of the model in service."""
    return {
        "id": record["record_id"],
        "kind": PICTURE,
        "at": record["scored_at"],
        **{key: record.get(key) for key in COPIED},
        "regions": of_text(record.get("regions")),
        "reason": None,
        "model": {"name": name, "version": record.get("model_version")},
    }
