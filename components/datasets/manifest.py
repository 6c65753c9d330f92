"""The manifest: one row per image file with its hash, measurements and, for a file that cannot be used, the problem."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn

from components.artefacts import file_hash, recorded
from components.datasets.adapters import Row, adapter
from components.decoding import MAX_PIXELS, Decoding, decode
from components.errors import DataError
from components.measuring import grey, statistics
from components.progress import progress
from components.records import MANIFEST_COLUMNS


@dataclass(frozen=True)
class DataSettings:
    """Which adapter reads the data set called *name*; larger images than *max_pixels* are never decoded."""

    adapter: str
    name: str
    max_pixels: int = MAX_PIXELS


def make_manifest(data: Path, out: Path, settings: DataSettings) -> Path:
    """Write out/manifest.parquet (records.MANIFEST_COLUMNS). Raises DataError when the folder is not the adapter's."""
    if not data.is_dir():
        raise DataError(f"{data}: is not a folder; bring the data in with `loupe data add`")
    rows = adapter(settings.adapter).rows(data)
    with recorded(out, "manifest", settings, {}) as scratch:
        records = [_record(data, row, settings) for row in progress(rows, f"{settings.name}: reading images")]
        table = pd.DataFrame(records, columns=list(MANIFEST_COLUMNS))
        table.to_parquet(scratch / "manifest.parquet", index=False)
    return out


def _record(data: Path, row: Row, settings: DataSettings) -> dict[str, Any]:
    path = data / row.image_id
    record = {**asdict(row), "dataset": settings.name}
    if not path.exists():
        return {**record, "problem": "the file is listed but missing"}
    record["sha256"] = file_hash(path)
    try:
        pixels = decode(path, row.image_id, Decoding(max_pixels=settings.max_pixels))
    except DataError as error:
        return {**record, "problem": str(error)}
    with Image.open(path) as image:
        return {**record, "mode": image.mode, **measure(pixels)}


def measure(pixels: np.ndarray) -> dict[str, Any]:
    """Size in pixels; grey mean and standard deviation in [0, 1]; variance of the Laplacian; 64-bit DCT hash in hex."""
    shade = grey(pixels)
    return {**statistics(shade), "phash": perceptual_hash(shade)}


def perceptual_hash(shade: np.ndarray) -> str:
    """The signs of the 64 lowest frequencies of the image at 32 x 32 against their median."""
    small = Image.fromarray((shade * 255).astype(np.uint8)).resize((32, 32), Image.Resampling.BOX)
    low = dctn(np.asarray(small, np.float64), norm="ortho")[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()
