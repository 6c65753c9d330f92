"""The reference that goes with a bundle: how its calibrate normals score and look, for drift to be measured against."""

from collections.abc import Sequence
from pathlib import Path

from components.core.records import SCORE_COLUMNS
from components.decision.batch import record_of, write_records
from components.decision.bundle import Bundle
from components.pictures.kept import decode


def write_reference(bundle: Bundle, data: Path, names: Sequence[str], out: Path) -> Path:
    """Score the images with the exported graph itself and write *out* (records.SCORE_COLUMNS)."""
    # Latency varies from run to run and the bundle's bytes must not.
    pictures = ((name, decode(data / name, name, bundle.decoding)) for name in names)
    records = [{**record_of(bundle, pixels, name, "reference"), "latency_ms": None} for name, pixels in pictures]
    return write_records(records, out, SCORE_COLUMNS)
