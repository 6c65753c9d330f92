"""Score records as a file, in the form that its suffix names, and as lines for a person."""

import csv
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.core.errors import DataError
from components.core.places import writing
from components.core.records import SCORE_COLUMNS
from components.core.system import replace
from components.pictures.regions import of_text

PROBLEM = "problem"  # the column that says why a file was not scored
REGIONS = "regions"  # the column that says where the defect is: a list in JSON, and its text in the other forms
WORST = 10  # anomalous pictures that are told by name
Records = Sequence[Mapping[str, Any]]


def write_records(records: Records, out: Path, columns: Sequence[str] = SCORE_COLUMNS) -> Path:
    """Records as one file, written aside and renamed; absent values are null.

    Parquet and JSON hold all *columns*, CSV all but the embedding: a spreadsheet is read by a person. Raises DataError
    for another suffix.
    """
    require_form(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = out.with_name(f".scores-{uuid.uuid4().hex}.part")  # two processes may write the same file
    with writing(out):
        try:
            FORMS[out.suffix.lower()](records, scratch, columns)
            replace(scratch, out)
        finally:
            scratch.unlink(missing_ok=True)
    return out


def require_form(out: Path) -> None:
    """Raises DataError where the suffix of *out* names none of the forms."""
    if out.suffix.lower() not in FORMS:
        raise DataError(f"{out}: its suffix says how it is written; give a name that ends in {', '.join(FORMS)}")


def _parquet(records: Records, path: Path, columns: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Also where all are null.
    known = {"score": pa.float64(), **dict.fromkeys(("decision", PROBLEM, REGIONS), pa.string())}
    pq.write_table(pa.table({c: pa.array([r.get(c) for r in records], known.get(c)) for c in columns}), path)


def _csv(records: Records, path: Path, columns: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.DictWriter(file, [c for c in columns if c != "embedding"], extrasaction="ignore")
        rows.writeheader()
        rows.writerows(records)


def _json(records: Records, path: Path, columns: Sequence[str]) -> None:
    rows = [{c: of_text(r.get(c)) if c == REGIONS else r.get(c) for c in columns} for r in records]
    path.write_text(json.dumps(rows, indent=1, default=str))


FORMS: dict[str, Callable[[Records, Path, Sequence[str]], None]] = {".parquet": _parquet, ".csv": _csv, ".json": _json}


def told(records: Records) -> list[str]:
    """How many pictures are anomalous, and which, the least likely ones first."""
    scored = [record for record in records if record.get(PROBLEM) is None]
    found = sorted((r for r in scored if r["decision"] == "anomalous"), key=lambda r: r["threshold"] - r["score"])
    said = [f"{len(found)} of {len(scored)} pictures are anomalous{', worst first:' if found else ''}"]
    for record in found[:WORST]:
        limit = f"score {record['score']:.4g} above {record['threshold']:.4g}, p {record['p_value']:.3g}"
        said.append(f"  {record['image_id']}: {limit}")
    if len(found) > WORST:
        said.append(f"  and {len(found) - WORST} more")
    return said
