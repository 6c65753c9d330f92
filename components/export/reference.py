"""The reference that goes with a bundle: how its calibrate normals score and look, for drift to be measured against."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core.records import SCORE_COLUMNS
from components.decision.batch import record_of
from components.decision.bundle import Bundle
from components.decision.tables import write_records
from components.pictures.kept import decode


def write_reference(bundle: Bundle, data: Path, scores: Mapping[str, float | None], out: Path) -> Path:
    """Score the images with the exported graph itself and write *out* (records.SCORE_COLUMNS).

    A score that is given stands instead, with what is decided by it: that of a fold's model, for a picture that the
    graph's own model has learned from.
    """
    # Latency varies from run to run and the bundle's bytes must not.
    pictures = ((name, decode(data / name, name, bundle.decoding)) for name in scores)
    records = [
        {**record_of(bundle, pixels, name, "reference"), "latency_ms": None, **_said(bundle, scores[name])}
        for name, pixels in pictures
    ]
    return write_records(records, out, SCORE_COLUMNS)


def _said(bundle: Bundle, score: float | None) -> dict[str, Any]:
    return {} if score is None else {"score": score, **bundle.decide(score)._asdict()}
