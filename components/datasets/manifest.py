"""The manifest: one row per image file with its hash, measurements and, for a file that cannot be used, the problem."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn

from components.artefacts import file_hash, recorded, write_json
from components.datasets.adapters import Row, adapter
from components.datasets.loading import DECODING
from components.decoding import MAX_PIXELS, Decoding, full_scale, largest, picture
from components.errors import DataError, SettingsError
from components.listing import printable
from components.measuring import grey, statistics
from components.progress import progress
from components.records import MANIFEST_COLUMNS

log = logging.getLogger("loupe")


@dataclass(frozen=True)
class DataSettings:
    """Which adapter reads the data set called *name*; larger images than *max_pixels* are never decoded.

    *white* is the value of files with more than 8 bits that is shown as white; None: what the files themselves show.
    """

    adapter: str
    name: str
    max_pixels: int = MAX_PIXELS
    white: float | None = None


def make_manifest(data: Path, out: Path, settings: DataSettings) -> Path:
    """Write out/manifest.parquet (records.MANIFEST_COLUMNS) and decoding.json, by which its pictures are read.

    Raises DataError when the folder is not the adapter's.
    """
    if not data.is_dir():
        raise DataError(f"{data}: is not a folder; bring the data in with `loupe data add`")
    if (settings.white is not None and settings.white <= 0) or settings.max_pixels <= 0:
        raise SettingsError(f"data.white is {settings.white}, data.max_pixels {settings.max_pixels}; give more than 0")
    rows = adapter(settings.adapter).rows(data)
    with recorded(out, "manifest", settings, {}) as scratch:
        rules = Decoding(settings.white or _white(data, rows, settings), settings.max_pixels)
        write_json(scratch / DECODING, rules)
        records = [_record(data, row, settings, rules) for row in progress(rows, f"{settings.name}: reading images")]
        table = pd.DataFrame(records, columns=list(MANIFEST_COLUMNS))
        table.to_parquet(scratch / "manifest.parquet", index=False)
    return out


def _white(data: Path, rows: Sequence[Row], settings: DataSettings) -> float | None:
    """The white of files with more than 8 bits: what their largest value reaches, so that all are scaled alike."""
    rules, found = Decoding(max_pixels=settings.max_pixels), dict[float, str]()
    for row in progress(rows, f"{settings.name}: looking for more than 8 bits"):
        try:
            top = largest(data / row.image_id, rules)
        except DataError:
            continue  # reading it tells why
        if top is not None:
            found.setdefault(top, row.image_id)
    if not found:
        return None
    low, high = min(found), max(found)
    white = full_scale(high)
    if low == 1 and high > 1:
        raise DataError(f"{data}: {printable(found[low])} has values from 0 to 1, {printable(found[high])} up to "
                        f"{high:g}; export them alike, or set data.white")  # fmt: skip
    log.info("%s: files of more than 8 bits reach %g (%s); white is %g", data, high, printable(found[high]), white)
    return white


def _record(data: Path, row: Row, settings: DataSettings, rules: Decoding) -> dict[str, Any]:
    path = data / row.image_id
    said = {key: printable(value) if isinstance(value, str) else value for key, value in asdict(row).items()}
    record = {**said, "dataset": settings.name}
    for named in (row.image_id, row.mask or ""):
        if printable(named) != named:
            return {**record, "problem": f"{printable(named)}: its name is not valid UTF-8; rename it"}
    if not path.exists():
        return {**record, "problem": "the file is listed but missing"}
    try:
        record["sha256"] = file_hash(path)
        found = picture(path, row.image_id, rules)
        return {**record, "mode": found.mode, **measure(found.pixels)}
    except DataError as error:
        return {**record, "problem": str(error)}
    except Exception as error:
        return {**record, "problem": f"{row.image_id}: cannot be used ({type(error).__name__}: {error}); copy it again"}


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
