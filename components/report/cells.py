"""Pictures of a report: which are shown, scored by the bundle that ships, drawn side by side with their heat.

They are kept beside the page, with what is needed of the data check, so that the page can be written again, at another
operating point say, from files alone.
"""

import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import binary_closing

from components.core.artefacts import atomic_dir, read_json, write_json
from components.core.records import CHECK_TABLE, NORMAL
from components.decision.bundle import Bundle
from components.pictures.clips import target
from components.pictures.framing import outline
from components.pictures.heat import overlay
from components.pictures.kept import decode
from components.report.found import anomalies

KEPT = "report"  # the folder beside the page
GOOD = 4  # good pictures that are shown
SIDE = 260  # pixels of a picture's longer side on the page
MARK = (0, 200, 255)  # the line around an anomaly, RGB
GAP = 100  # of a picture's longer side: what is narrower within an anomaly is part of it


@dataclass(frozen=True)
class Made:
    """What a run was made of: the data set's folder, and the artefacts of the stages before training.

    *synthetic* are several where the model was checked in folds; *validations* may be gone, as those of an ensemble.
    """

    data: Path
    split: Path
    synthetic: tuple[Path, ...]
    validations: tuple[Path, ...]


@dataclass(frozen=True)
class Wanted:
    """A picture to show: where it is, what it is, its score as calibrated or checked, and the mask of its anomaly.

    Where the model was checked in folds, that score is of the fold that had held the picture out.
    """

    path: Path
    what: str
    checked: float
    mask: Path | None = None


def collect(run: Path, made: Made) -> Path:
    """Write RUN/report: pictures with their heat (cells.json says which), and data.json.

    *run* holds ``model`` and ``bundle``.
    """
    with atomic_dir(run / KEPT) as scratch:
        cells = [_cell(number, *pair, scratch) for number, pair in enumerate(_scored(run, made))]
        write_json(scratch / "cells.json", cells)
        write_json(scratch / "data.json", _data(made, run))
        if (grid := made.synthetic[0] / "grid.png").exists():
            shutil.copyfile(grid, scratch / "grid.png")
    return run / KEPT


def _scored(run: Path, made: Made) -> Iterator[tuple[Wanted, Bundle]]:
    opened = Bundle.open(run / "bundle")
    return ((wanted, opened) for wanted in chosen(run, made))


def chosen(run: Path, made: Made) -> list[Wanted]:
    """The good pictures that look least normal, and of each kind of anomaly the middle one and the one least seen."""
    path = run / "model" / CHECK_TABLE
    if not path.exists():
        return []
    checked = pd.read_parquet(path).sort_values("score", ascending=False, kind="stable")
    good = checked[checked["kind"] == NORMAL][:GOOD]
    held = dict(zip(good["image_id"], good["score"], strict=True)) | _calibrated(run)
    found = [Wanted(made.data / str(name), "good", float(held[name])) for name in good["image_id"]]
    masks = _masks(made.synthetic)
    for kind, part in anomalies(checked).groupby("kind"):
        scores = {name: float(score) for name, score in zip(part["image_id"], part["score"], strict=True)}
        names = [name for name in scores if name in masks]
        for name in dict.fromkeys([*names[len(names) // 2 :][:1], *names[-1:]]):
            folder, mask = masks[name]
            found.append(Wanted(folder / name, str(kind), scores[name], folder / mask))
    return found


def _calibrated(run: Path) -> dict[str, float]:
    """The scores of good pictures that the threshold rests on: the check's are the same but for rounding."""
    path = run / "bundle" / "reference.parquet"
    if not path.exists():
        return {}
    table = pd.read_parquet(path, columns=["image_id", "score"])
    return dict(zip(table["image_id"], table["score"], strict=True))


def _masks(folders: tuple[Path, ...]) -> dict[str, tuple[Path, str]]:
    """Of each synthetic anomaly the folder that it lies below, and its mask."""
    found: dict[str, tuple[Path, str]] = {}
    for folder in folders:
        table = pd.read_parquet(folder / "synthetic.parquet", columns=["image_id", "mask"])
        found |= {name: (folder, mask) for name, mask in zip(table["image_id"], table["mask"], strict=True)}
    return found


def _cell(number: int, wanted: Wanted, opened: Bundle, out: Path) -> dict[str, Any]:
    seen = decode(wanted.path, rules=opened.decoding)
    scores, maps, _ = opened.score([seen])
    pixels = target(seen)
    marked = np.array(pixels)
    if wanted.mask is not None:
        marked[outline(_whole(np.asarray(Image.open(wanted.mask).convert("L")) > 0))] = MARK
    heat = np.asarray(Image.fromarray(maps[0, 0]).resize(pixels.shape[1::-1], Image.Resampling.BILINEAR))
    drawn = overlay(pixels, heat, opened.calibration.scale, opened.decoding.roi)
    name = f"{number:02d}.jpg"
    _beside(Image.fromarray(marked), Image.open(io.BytesIO(drawn))).save(out / name, quality=85)
    about = {"file": name, "what": wanted.what, "name": wanted.path.name}
    return {**about, "score": float(scores[0]), "checked": wanted.checked}


def _whole(mask: np.ndarray) -> np.ndarray:
    """*mask* without gaps that are narrow beside the picture: a line around each speck of a cloud would fill it."""
    step = max(1, max(mask.shape) // GAP)
    padded = np.pad(mask, [(0, -n % step) for n in mask.shape])
    coarse = np.asarray(padded.reshape(len(padded) // step, step, -1, step).any((1, 3)))
    closed = np.asarray(binary_closing(coarse, iterations=2), bool)
    return closed.repeat(step, 0).repeat(step, 1)[: mask.shape[0], : mask.shape[1]] | mask


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    """Two pictures in one, small enough for a page; high ones are no higher than others are wide."""
    small = [image.copy() for image in (left, right)]
    for image in small:
        image.thumbnail((SIDE, SIDE))
    width, height = small[0].size
    whole = Image.new("RGB", (2 * width + 4, height), "white")
    whole.paste(small[0], (0, 0))
    whole.paste(small[1], (width + 4, 0))
    return whole


def _data(made: Made, run: Path) -> dict[str, Any]:
    """What validation, split and synthesis say; pages as *run* sees them, so that both may move together."""
    split = read_json(made.split / "split.json") if (made.split / "split.json").exists() else {}
    levels = made.synthetic[0] / "levels.json"
    there = [folder for folder in made.validations if (folder / "summary.json").exists()]
    return {
        "validation": [read_json(folder / "summary.json") for folder in there],
        "pages": [os.path.relpath(folder / "docs" / "index.html", run) for folder in there],
        "counts": split.get("counts", {}),
        "copies": split.get("copies", {}),
        "levels": read_json(levels) if levels.exists() else {},
    }
