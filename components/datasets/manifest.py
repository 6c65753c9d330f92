"""The manifest: one row per image file with its hash, measurements and, for a file that cannot be used, the problem."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.fft import dctn

from components.core.artefacts import file_hash, recorded, write_json
from components.core.errors import DataError, SettingsError
from components.core.filenames import printable
from components.core.progress import progress
from components.core.records import MANIFEST_COLUMNS
from components.datasets.adapters import adapter, listed
from components.datasets.loading import DECODING, LISTING
from components.datasets.rows import Row
from components.datasets.settings import DataSettings
from components.pictures.decoding import Decoding, Picture, full_scale, largest
from components.pictures.framing import OTHER_SHAPE, ShapeError
from components.pictures.kept import picture
from components.pictures.masks import AS_IS, Reading, Region, mask_paths, read_as, sizes
from components.pictures.measuring import grey, statistics
from components.pictures.roi import pinned, region_text
from components.pictures.tiles import LONG, MOST

log = logging.getLogger("loupe")
STRAY = 0.05  # share of long pictures up to which all are squeezed into one square


def make_manifest(data: Path, out: Path, settings: DataSettings) -> Path:
    """Write out/manifest.parquet (records.MANIFEST_COLUMNS), decoding.json, by which its pictures are read, and
    listing.json, which says what was found in the folder.

    Raises DataError when the folder is not the adapter's, or the region of interest does not fit its pictures.
    """
    if not data.is_dir():
        raise DataError(f"{data}: is not a folder; bring the data in with `loupe data add`")
    if (settings.white is not None and settings.white <= 0) or settings.max_pixels <= 0:
        raise SettingsError(f"data.white is {settings.white}, data.max_pixels {settings.max_pixels}; give more than 0")
    if settings.tiles != "auto" and not 0 <= settings.tiles <= MOST:
        raise SettingsError(
            f"data.tiles is {settings.tiles}; give auto, or 0 to {MOST} squares across the shorter side"
        )
    if settings.stride < 1:
        raise SettingsError(f"data.stride is {settings.stride}; give 1 for every frame, 2 for every second")
    found = listed(settings.adapter, data, settings.naming)
    rows, regions = found.rows, list[Region]()
    with recorded(out, "manifest", settings, {}) as scratch:
        rules = _rules(data, rows, settings)
        counted = progress(rows, f"{settings.name}: reading images")
        table = read_rows(data, counted, settings, rules, regions)
        _require_one_shape(data, table)
        write_json(scratch / DECODING, replace(rules, tiles=_tiles(data, table, settings, rules)).kept)
        table.to_parquet(scratch / "manifest.parquet", index=False)
        write_json(scratch / LISTING, {**found.notes, "regions": sizes(regions)})
    return out


def read_rows(
    data: Path, rows: Iterable[Row], settings: DataSettings, rules: Decoding, regions: list[Region]
) -> pd.DataFrame:
    """The table of *rows* (records.MANIFEST_COLUMNS); what their masks mark is added to *regions*."""
    records = [_record(data, row, settings, rules, regions) for row in rows]
    return pd.DataFrame(records, columns=list(MANIFEST_COLUMNS))


def _rules(data: Path, rows: Sequence[Row], settings: DataSettings) -> Decoding:
    roi = region_text(settings.roi) if settings.roi else None
    stride = settings.stride if adapter(settings.adapter).clips else 0
    rules = Decoding(settings.white or _white(data, rows, settings), settings.max_pixels, roi, stride=stride)
    return rules if roi is None else replace(rules, roi=pinned(roi, _first_size(data, rows, rules.whole)))


def _first_size(data: Path, rows: Sequence[Row], rules: Decoding) -> tuple[int, int]:
    """Width and height of the first picture that can be read."""
    for row in rows:
        try:
            height, width = picture(data / row.image_id, row.image_id, rules).pixels.shape[:2]
            return width, height
        except DataError:
            continue  # reading it again tells why
    raise DataError(f"{data}: no picture can be read, for which a region of interest is drawn; export them again")


def _require_one_shape(data: Path, table: pd.DataFrame) -> None:
    """One picture of another shape may be anything; the region was drawn for one of them."""
    others = [str(said) for said in table["problem"].dropna() if OTHER_SHAPE in str(said)]
    if others:
        raise DataError(
            f"{data}: {len(others)} of {len(table)} pictures do not fit the region of interest: {others[0]}, take the "
            "others out, or draw the region on one of these"
        )


def _tiles(data: Path, table: pd.DataFrame, settings: DataSettings, rules: Decoding) -> int:
    """How many squares across a picture's shorter side a model sees; 0: the whole picture, squeezed into one."""
    if rules.stride:
        if settings.tiles not in ("auto", 0):
            raise SettingsError(f"data.tiles is {settings.tiles}; frames of clips are seen whole: leave it out")
        return 0
    if settings.tiles != "auto":
        return settings.tiles
    sides = table[["width", "height"]].dropna().to_numpy(float)
    long = int((sides.max(1) > LONG * sides.min(1)).sum()) if len(sides) else 0
    if long <= STRAY * len(sides):
        return 0
    log.info("%s: %d of %d pictures are long: seen in squares of the shorter side (data.tiles)", data, long, len(sides))
    return 1


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
        raise DataError(
            f"{data}: {printable(found[low])} has values from 0 to 1, {printable(found[high])} up to "
            f"{high:g}; export them alike, or set data.white"
        )
    log.info("%s: files of more than 8 bits reach %g (%s); white is %g", data, high, printable(found[high]), white)
    return white


def _record(data: Path, row: Row, settings: DataSettings, rules: Decoding, regions: list[Region]) -> dict[str, Any]:
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
        found = picture(path, row.image_id, rules.whole)  # copies are told by the whole of a picture
        reading = _reading(data, row, settings, rules, found)
        regions += reading.regions
        return {**record, "mask_rule": reading.rule, "mode": found.mode, **measure(found.pixels, rules.roi)}
    except DataError as error:
        return {**record, "problem": str(error)}
    except ShapeError as error:
        return {**record, "problem": f"{row.image_id}: {error}"}
    except Exception as error:
        return {**record, "problem": f"{row.image_id}: cannot be used ({type(error).__name__}: {error}); copy it again"}


def mask_rule(data: Path, row: Row, settings: DataSettings, rules: Decoding) -> str | None:
    """How the masks of *row* are read, in words that stand beside it in another data set."""
    if not row.mask or row.mask_rule:
        return row.mask_rule
    try:
        found = picture(data / row.image_id, row.image_id, rules)
    except DataError:
        return None  # the manifest says so of the picture
    return _reading(data, row, settings, rules, found).rule or AS_IS


def _reading(data: Path, row: Row, settings: DataSettings, rules: Decoding, found: Picture) -> Reading:
    if row.label == "normal" or not row.mask or row.mask_rule:
        return Reading(row.mask_rule)
    height, width = found.pixels.shape[:2]
    paths = [data / path for path in mask_paths(row.mask)]
    return read_as(paths, (width, height), found.turn, settings.masks, settings.mask_turn, rules)


def measure(pixels: np.ndarray, roi: str | None = None) -> dict[str, Any]:
    """Size in pixels; grey mean and standard deviation in [0, 1]; variance of the Laplacian; 64-bit DCT hash in hex.

    *pixels* are the whole picture, as the hash is of; the other measures are of the region of interest alone.
    """
    shade = grey(pixels)
    return {**statistics(shade, roi), "phash": perceptual_hash(shade)}


def perceptual_hash(shade: np.ndarray) -> str:
    """The signs of the 64 lowest frequencies of the image at 32 x 32 against their median."""
    small = Image.fromarray((shade * 255).astype(np.uint8)).resize((32, 32), Image.Resampling.BOX)
    low = dctn(np.asarray(small, np.float64), norm="ortho")[:8, :8].ravel()
    bits = low > np.median(low[1:])
    return np.packbits(bits).tobytes().hex()
