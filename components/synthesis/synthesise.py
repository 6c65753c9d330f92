"""Synthetic anomalies with exact masks: seeded, of controlled area and strength.

Their scores choose epochs and the champion; they never stand for real defects in a reported number.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from components.core.artefacts import file_hash, recorded, values_hash
from components.core.errors import DataError, SettingsError
from components.core.progress import progress
from components.core.records import SYNTHETIC_COLUMNS
from components.datasets.loading import read_decoding, rows
from components.pictures.decoding import Decoding
from components.pictures.kept import decode
from components.synthesis.blending import Synthetic
from components.synthesis.settings import SynthesisSettings
from components.synthesis.strategies import AREAS, STRATEGIES

TRIES = 50
GRID_ROWS = 3
STEM_BYTES = 100  # of an image's name in that of its anomaly: file systems take 255 bytes in all


@cache
def identity() -> str:
    """Hash of the code below this folder: features of what older code made must not be taken for those of today's."""
    return values_hash([file_hash(path) for path in sorted(Path(__file__).parent.glob("*.py"))])


def make(name: str, image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """One anomaly on a uint8 (H, W, 3) image, redrawn until its area is within its range. Raises DataError."""
    if name not in STRATEGIES:
        raise SettingsError(f"synthesis.strategies: {name} does not exist; choose of {', '.join(STRATEGIES)}")
    low, high = AREAS.get(name, settings.area)
    for _ in range(TRIES):
        made = STRATEGIES[name](image, rng, settings)
        if low <= made.area <= high:
            return made
    raise DataError(f"{name}: no anomaly of area {low} to {high} in {TRIES} tries; widen synthesis.area")


def synthesise(split: Path, data: Path, out: Path, settings: SynthesisSettings, seed: int) -> Path:
    """Synthetic anomalies on the calibrate normals: images, masks, synthetic.parquet and a picture grid."""
    table, rules = rows(split, "calibrate", "normal"), read_decoding(split)
    with recorded(out, "synthesise", settings, {"split": split / "split.parquet"}, seed) as scratch:
        (scratch / "images").mkdir()
        (scratch / "masks").mkdir()
        records, shown = [], []
        for number, image_id in enumerate(progress(list(table["image_id"]), "synthetic anomalies")):
            for k in range(settings.per_image):
                strategy = settings.strategies[(number + k) % len(settings.strategies)]
                original = _prepared(data / image_id, settings.size, rules)
                made = make(strategy, original, _generator(seed, image_id, strategy, k), settings)
                records.append(_write(scratch, made, image_id, strategy, k, seed))
                shown.append((strategy, original, made))
        pd.DataFrame(records, columns=list(SYNTHETIC_COLUMNS)).to_parquet(scratch / "synthetic.parquet", index=False)
        _grid(shown, settings).save(scratch / "grid.png")
    return out


def _generator(seed: int, *parts: object) -> np.random.Generator:
    digest = hashlib.sha256("/".join(map(str, (seed, *parts))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _prepared(path: Path, size: int, rules: Decoding) -> np.ndarray:
    return np.asarray(Image.fromarray(decode(path, rules=rules)).resize((size, size), Image.Resampling.BILINEAR))


def _short(origin: str) -> str:
    """A file name from an image id: its stem, cut, and a hash, as stems occur again in other folders."""
    stem = Path(origin).stem.encode()[:STEM_BYTES].decode(errors="ignore")
    return f"{stem}-{hashlib.sha256(origin.encode()).hexdigest()[:12]}"


def _write(out: Path, made: Synthetic, origin: str, strategy: str, k: int, seed: int) -> dict[str, Any]:
    name = f"{_short(origin)}-{strategy}-{k}.png"
    Image.fromarray(made.image).save(out / "images" / name)
    Image.fromarray(made.mask).save(out / "masks" / name)
    values = (f"images/{name}", f"masks/{name}", origin, strategy, made.strength, made.area, seed)
    return dict(zip(SYNTHETIC_COLUMNS, values, strict=True))


def _grid(shown: list[tuple[str, np.ndarray, Synthetic]], settings: SynthesisSettings) -> Image.Image:
    """Per strategy a row of original, anomalous image and mask, GRID_ROWS times side by side."""
    lines = []
    for strategy in settings.strategies:
        cells = [c for s, original, made in shown if s == strategy for c in (original, made.image, _grey(made.mask))]
        cells = (cells + [np.zeros((settings.size, settings.size, 3), np.uint8)] * 3 * GRID_ROWS)[: 3 * GRID_ROWS]
        lines.append(np.concatenate(cells, 1))
    grid = Image.fromarray(np.concatenate(lines))
    return grid.resize((grid.width // 2, grid.height // 2), Image.Resampling.BILINEAR)


def _grey(mask: np.ndarray) -> np.ndarray:
    return np.repeat((mask * 255).astype(np.uint8)[..., None], 3, 2)
