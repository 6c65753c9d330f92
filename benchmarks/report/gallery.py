"""All trained methods on the same test pictures: what ``loupe bench fit`` left, drawn on the scale of good pictures.

The pictures are fixed by their names and kinds, never by what a method makes of them.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from benchmarks.common.images import View
from benchmarks.common.results import WORK
from components.core.artefacts import read_json
from components.datasets.loading import rows
from components.detectors.catalogue import CATALOGUE
from components.pictures.decoding import Decoding
from components.pictures.heat import overlay
from components.pictures.kept import decode
from components.report.blocks import Block, Figure, Figures, Text

VIEW, SIDE, EACH = "mtd", 110, 1  # pictures of this view, so many pixels large, so many of each kind of defect
NONE = (
    f"No trained model lies below `{WORK.as_posix()}`, so there are no pictures here; `loupe bench fit` trains them "
    "and leaves them there."
)


def blocks(view: str = VIEW) -> tuple[Block, ...]:
    """The gallery of a view, or the sentence that says how to get one."""
    folders = {name: View.of(view).stages.of(name) for name in CATALOGUE}
    trained = {name: at for name, at in folders.items() if (at / "model" / "model.safetensors").exists()}
    if not trained:
        return (Text(NONE),)
    return (Figures((figure(trained, chosen(View.of(view)), View.of(view).rules, view),)),)


def chosen(view: View) -> list[tuple[str, Path]]:
    """A good picture, and of each kind of defect the first by name."""
    table = rows(view.split, "test")
    table = table[table["label"].isin(["normal", "anomalous"])].sort_values("image_id")
    kinds = table["defect"].where(table["label"] == "anomalous", "good").fillna("defect")
    found = [(str(kind), str(name)) for kind, part in table.groupby(kinds) for name in part["image_id"][:EACH]]
    found.sort(key=lambda pair: (pair[0] != "good", pair[0]))
    return [(kind, view.stages.data / name) for kind, name in found]


def figure(trained: dict[str, Path], pictures: list[tuple[str, Path]], rules: Decoding, view: str) -> Figure:
    """One line a method, one column a picture; above them the pictures themselves. As PNG."""
    pixels = [decode(path, rules=rules) for _, path in pictures]
    lines = [[_label(""), *(_tile(image) for image in pixels)]]
    for name, at in trained.items():
        tiles = drawn(at, [path for _, path in pictures], pixels, rules)
        lines.append([_label(name), *map(_tile, tiles)])
    whole = np.concatenate([np.concatenate(line, 1) for line in lines])
    stream = io.BytesIO()
    Image.fromarray(whole).convert("P", palette=Image.Palette.ADAPTIVE).save(stream, "PNG", optimize=True)
    scale = "Nothing is drawn up to 99 % of good spots; orange is the most of a good picture, yellow twice as far."
    told = f"{view}, from left to right: {', '.join(kind for kind, _ in pictures)}. {scale}"
    return Figure(
        "gallery", "heat maps of all trained methods on the same pictures", stream.getvalue(), "png", told, True
    )


def drawn(at: Path, paths: list[Path], pixels: list[np.ndarray], rules: Decoding) -> list[np.ndarray]:
    """The heat of the detector in folder *at* over each picture, uint8 (H, W, 3)."""
    from components.training.model import load_model, score_files

    scale = read_json(at / "calibration" / "calibration.json")["map"]
    maps = [heat for _, batch in score_files(load_model(at / "model"), paths, rules=rules) for heat in batch]
    return [_over(image, heat, scale) for image, heat in zip(pixels, maps, strict=True)]


def _over(image: np.ndarray, heat: np.ndarray, scale: dict[str, float]) -> np.ndarray:
    resized = Image.fromarray(np.asarray(heat, np.float32).squeeze()).resize(
        image.shape[1::-1], Image.Resampling.BILINEAR
    )
    return np.asarray(Image.open(io.BytesIO(overlay(image, np.asarray(resized), scale))).convert("RGB"))


def _label(name: str) -> np.ndarray:
    """The name in a white square."""
    square = Image.new("RGB", (SIDE, SIDE), "white")
    ImageDraw.Draw(square).text((6, SIDE // 2 - 8), name, "black", font_size=15)
    return np.asarray(square)


def _tile(image: np.ndarray) -> np.ndarray:
    """The picture in a white square."""
    small = Image.fromarray(np.asarray(image))
    small.thumbnail((SIDE - 4, SIDE - 4))
    square = Image.new("RGB", (SIDE, SIDE), "white")
    square.paste(small, ((SIDE - small.width) // 2, (SIDE - small.height) // 2))
    return np.asarray(square)
