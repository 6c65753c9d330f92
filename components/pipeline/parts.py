"""``loupe parts``: the p-values of good parts whose pictures were all scored, for ``service.line.part.calibration``."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from components.core.artefacts import write_json
from components.core.errors import DataError, SettingsError
from components.core.places import check_file
from components.decision.conformal import smallest
from components.scorelog import table
from components.scorelog.labels import DEFECT, read_labels
from components.scorelog.table import Record
from components.storage import open_store


def write_parts(address: str, views: Sequence[str], out: Path, since: str = "") -> list[str]:
    """Write a list of p-values in the order of *views* for each good part in the store at *address*; what to tell.

    A part counts that was decided by the model of the newest one, on the day *since* (ISO) or later, and none of whose
    pictures a reviewer called a defect. Raises SettingsError where no views are set or *out* is a file of another kind,
    DataError where no part counts.
    """
    require_own(out)
    if not views:
        raise SettingsError("service.line.part.views: names no sources; name those whose pictures show one part")
    store = open_store(address)
    rows = [row for row in table.newest_first(store, table.PARTS, "+".join(views), since) if row["p_value"] is not None]
    if not rows:
        raise DataError(f"{address}: holds no decided part of {', '.join(views)}; let the service see good parts first")
    model, labels = rows[0]["model_version"], read_labels(store, since=since)
    faulty = {key for key, label in labels.items() if label["label"] == DEFECT}
    own = [row for row in rows if row["model_version"] == model]
    found = [values for row in reversed(own) for values in _values(row, views, faulty)]
    if not found:
        raise DataError(f"{address}: each of its {len(own)} parts has a picture that is labelled a defect")
    write_json(out, found)
    return list(_told(len(rows), len(own), len(found), str(model), out))


def require_own(out: Path) -> None:
    """Raises SettingsError where *out* cannot be written, or is a file that this command has not."""
    check_file(out)
    try:
        own = not out.exists() or isinstance(json.loads(out.read_text(encoding="utf-8")), list)
    except ValueError:
        own = False
    if not own:
        raise SettingsError(f"{out}: is no file of p-values and would be lost; give the name of another file")


def _values(row: Record, views: Sequence[str], faulty: set[str]) -> Iterator[list[float]]:
    """The p-values of a good part."""
    said = {view["source"]: view for view in json.loads(row["views"])}
    if not faulty & {view["id"] for view in said.values()}:
        yield [float(said[name]["p_value"]) for name in views]


def _told(all_of: int, own: int, good: int, model: str, out: Path) -> Iterator[str]:
    if all_of > own:
        yield f"{all_of - own} parts were decided by another model and are left out"
    if own > good:
        yield f"{own - good} parts have a picture labelled a defect and are left out"
    yield f"{good} good parts of model {model[:12]} in {out}: they allow an alpha of {smallest(good):.3g} or more"
    yield f"Next: set service.line.part.calibration to {out} and start the service again"
