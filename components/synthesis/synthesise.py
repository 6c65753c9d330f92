"""Synthetic anomalies with exact masks: seeded, of controlled area and strength.

Their scores choose epochs and the champion; they never stand for real defects in a reported number. Each is a file of
its picture's own size, decoded and resized like the picture itself, and differs from it by the anomaly alone.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from components.core.artefacts import file_hash, recorded, values_hash, write_json
from components.core.errors import DataError, SettingsError
from components.core.progress import progress
from components.core.records import SYNTHETIC_COLUMNS
from components.core.runtime import side_by_side
from components.datasets.loading import read_decoding, rows
from components.pictures.decoding import Decoding
from components.pictures.framing import region
from components.pictures.kept import decode
from components.pictures.measuring import is_grey
from components.synthesis.blending import Synthetic
from components.synthesis.clips import FAST, PAST, Clip, carried, fast
from components.synthesis.colour import colour_of, within_colour
from components.synthesis.placing import on_picture
from components.synthesis.settings import SynthesisSettings
from components.synthesis.strategies import AREAS, LOCAL, STRATEGIES

TRIES = 50
SPREAD = (0.7, 1.3)  # factors on a strength that was chosen for a data set
GRID_ROWS, CELL = 3, 128  # examples of each strategy in the picture grid, pixels of a cell
QUICK = 1  # zlib level of the files: a fifth larger, in a third of the time
STEM_BYTES = 100  # of an image's name in that of its anomaly: file systems take 255 bytes in all


@cache
def identity() -> str:
    """Hash of the code below this folder: features of what older code made must not be taken for those of today's."""
    return values_hash([file_hash(path) for path in sorted(Path(__file__).parent.glob("*.py"))])


def make(name: str, image: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
    """One anomaly on a square uint8 (H, W, 3) image, of no more colour than that has, redrawn until its area is right.

    Raises DataError.
    """
    if name not in STRATEGIES:
        raise SettingsError(f"synthesis.strategies: {name} does not exist; choose of {', '.join(STRATEGIES)}")
    low, high = AREAS.get(name, settings.area)
    colour = colour_of(image)
    for _ in range(TRIES):
        made = within_colour(image, STRATEGIES[name](image, rng, settings), colour)
        if low <= made.area <= high:
            return made
    raise DataError(f"{name}: no anomaly of area {low} to {high} in {TRIES} tries; widen synthesis.area")


def synthesise(
    split: Path,
    data: Path,
    out: Path,
    settings: SynthesisSettings,
    seed: int,
    levels: Mapping[str, Mapping[str, Any]] | None = None,
) -> Path:
    """Synthetic anomalies on the calibrate normals: images, masks, synthetic.parquet and a picture grid.

    Of clips each is a folder of frames (``synthesis.clips``), the last of which is scored.

    *levels* (levels.json) gives strategies a ``strength`` of their own, and says how it was found.
    """
    known = levels or {}
    of = {s: spread(settings, known[s]["strength"]) if s in known else settings for s in settings.strategies}
    table, rules = rows(split, "calibrate", "normal"), read_decoding(split)
    names = (*settings.strategies, FAST) if rules.stride else settings.strategies
    with recorded(out, "synthesise", settings, {"split": split / "split.parquet"}, seed) as scratch:
        (scratch / "images").mkdir()
        (scratch / "masks").mkdir()
        records, grid = [], Grid(names)

        def written(one: tuple[int, str]) -> list[tuple[dict[str, Any], list[np.ndarray]]]:
            number, image_id = one
            picture, found = decode(data / image_id, rules=rules), []
            for k in range(settings.per_image):
                strategy = names[(number + k) % len(names)]
                rng = generator(seed, image_id, strategy, k)
                if made := _drawn(data / image_id, picture, strategy, rng, of.get(strategy, settings), rules):
                    row = _write(scratch, made, image_id, strategy, k, seed, rules)
                    shown = made.made if isinstance(made, Clip) else made
                    found.append((row, cells(picture, shown) if grid.wants(strategy) else []))
            return found

        asked = list(enumerate(table["image_id"]))
        for found in progress(side_by_side(written, asked), "synthetic anomalies", len(asked)):
            for row, shown in found:
                records.append(row)
                grid.add(row["strategy"], shown)
        pd.DataFrame(records, columns=list(SYNTHETIC_COLUMNS)).to_parquet(scratch / "synthetic.parquet", index=False)
        grid.drawn().save(scratch / "grid.png")
        write_json(scratch / "levels.json", known)
    return out


def _drawn(
    path: Path,
    picture: np.ndarray,
    strategy: str,
    rng: np.random.Generator,
    settings: SynthesisSettings,
    rules: Decoding,
) -> Synthetic | Clip | None:
    """What is drawn on the picture of a file or, of clips, carried through the frames before it."""
    if strategy == FAST:
        return fast(path, rules, rng, partial(decode, rules=rules))
    made = on_whole(strategy, picture, rng, settings, region(rules.roi, picture.shape))
    if not rules.stride:
        return made
    return carried(decode(path, rules=replace(rules, window=1 + PAST)), made, strategy, rng)


def on_whole(
    name: str,
    picture: np.ndarray,
    rng: np.random.Generator,
    settings: SynthesisSettings,
    counts: np.ndarray | None = None,
) -> Synthetic:
    """One anomaly on a whole picture, uint8 (H, W, 3); what is drawn in a small place is drawn at full resolution.

    Where *counts*, bool (H, W), says what is looked at, the anomaly lies there alone. Raises DataError.
    """
    most = max(picture.shape) if name in LOCAL else settings.size
    return on_picture(picture, lambda square: make(name, square, rng, settings), most, rng, counts)


def spread(settings: SynthesisSettings, strength: float) -> SynthesisSettings:
    """*settings* with strengths around *strength*."""
    return replace(settings, strength=(strength * SPREAD[0], min(1.0, strength * SPREAD[1])))


def generator(seed: int, *parts: object) -> np.random.Generator:
    digest = hashlib.sha256("/".join(map(str, (seed, *parts))).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


def _short(origin: str) -> str:
    """A file name from an image id: its stem, cut, and a hash, as stems occur again in other folders."""
    stem = Path(origin).stem.encode()[:STEM_BYTES].decode(errors="ignore")
    return f"{stem}-{hashlib.sha256(origin.encode()).hexdigest()[:12]}"


def _write(
    out: Path, made: Synthetic | Clip, origin: str, strategy: str, k: int, seed: int, rules: Decoding
) -> dict[str, Any]:
    name = f"{_short(origin)}-{strategy}-{k}.png"
    if isinstance(made, Clip):
        image, made = _write_clip(out / "images" / Path(name).stem, made, rules.stride), made.made
    else:
        image = out / "images" / name
        write_png(made.image, image)
    Image.fromarray(made.mask).save(out / "masks" / name)
    extent = float(np.sqrt(made.mask.sum()))
    values = (
        image.relative_to(out).as_posix(),
        f"masks/{name}",
        origin,
        strategy,
        made.strength,
        made.area,
        extent,
        seed,
    )
    return dict(zip(SYNTHETIC_COLUMNS, values, strict=True))


def _write_clip(folder: Path, clip: Clip, stride: int) -> Path:
    """The frames as files of a folder, each *stride* times over, so that every stride-th is the next; the last one."""
    folder.mkdir()
    numbers = [at for at in range(PAST) for _ in range(stride)]
    for place, number in enumerate([*numbers, PAST]):
        path = folder / f"{place:04}.png"
        write_png(clip.frames[number], path)
    return path


def write_png(image: np.ndarray, path: Path) -> None:
    """uint8 (H, W, 3) as a file that decodes to the very same, whatever the rules of its data set; grey ones as grey.

    Eight bits have no white to be scaled by, and nothing is said of a turn: what was decoded once stays as it is.
    """
    Image.fromarray(image[..., 0] if is_grey(image) else image).save(path, compress_level=QUICK)


class Grid:
    """A picture of GRID_ROWS examples of every strategy: the original, the anomalous image and the mask, small."""

    def __init__(self, strategies: Sequence[str]) -> None:
        self.cells: dict[str, list[np.ndarray]] = {strategy: [] for strategy in strategies}

    def add(self, strategy: str, example: list[np.ndarray]) -> None:
        """Keep the ``cells`` of an example, where there is room for one more."""
        if self.wants(strategy):
            self.cells[strategy] += example

    def wants(self, strategy: str) -> bool:
        """Whether there is room for one more example."""
        return len(self.cells[strategy]) < 3 * GRID_ROWS

    def drawn(self) -> Image.Image:
        """A row for every strategy."""
        blank = [np.zeros((CELL, CELL, 3), np.uint8)] * 3 * GRID_ROWS
        lines = [np.concatenate((cells + blank)[: 3 * GRID_ROWS], 1) for cells in self.cells.values()]
        return Image.fromarray(np.concatenate(lines))


def cells(picture: np.ndarray, made: Synthetic) -> list[np.ndarray]:
    """What a grid shows of an anomaly."""
    return [_cell(picture), _cell(made.image), _cell(_grey(made.mask))]


def _cell(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize((CELL, CELL), Image.Resampling.BOX))


def _grey(mask: np.ndarray) -> np.ndarray:
    return np.repeat((mask * 255).astype(np.uint8)[..., None], 3, 2)
