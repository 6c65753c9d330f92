"""What the monitor looks at: one table of numbers, in standard deviations of the reference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from components.core.errors import MonitorError

PLAIN = ("score", "p_value", "brightness", "contrast", "sharpness")
EMBEDDING = tuple(f"embedding_{i:02d}" for i in range(16))
COLUMNS = (*PLAIN, *EMBEDDING)


def frame(records: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Score records -> float columns COLUMNS. Raises MonitorError when they carry no embedding."""
    if not records or any(record.get("embedding") is None for record in records):
        raise MonitorError("score records without an embedding cannot be monitored; export the bundle again")
    plain = np.array([[record[name] for name in PLAIN] for record in records], float)
    embedding = np.array([record["embedding"] for record in records], float)
    return pd.DataFrame(np.hstack([plain, embedding]), columns=list(COLUMNS))


def read_reference(bundle: Path) -> pd.DataFrame:
    """The reference of a bundle. Raises MonitorError when it has none."""
    path = bundle / "reference.parquet"
    if not path.exists():
        raise MonitorError(f"{path}: not found, so there is nothing to compare with; export the bundle again")
    return frame(pq.read_table(path).to_pylist())


def standardised(table: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    """In standard deviations of the reference. A column that is constant there counts in units of its own size."""
    centre, spread = reference.mean(), reference.std(ddof=0)
    spread = spread.where(spread > 1e-9, centre.abs().clip(lower=1e-6))
    return (table - centre) / spread
