"""Tiny clips for tests: a bright square that moves over a still, rough ground."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

SIDES = (48, 64)  # height and width


def frame(time: int, speed: int = 3, start: int = 2, shade: int = 230, seed: int = 0) -> np.ndarray:
    """uint8 (48, 64, 3) at *time* of a clip."""
    ground = np.random.default_rng(seed).integers(60, 90, (*SIDES, 1), np.uint8)
    pixels = np.repeat(ground, 3, 2)
    at = (start + speed * time) % (SIDES[1] - 10)
    pixels[18:28, at : at + 8] = shade
    return pixels


def write_clip(folder: Path, count: int, suffix: str = ".png", first: int = 0, **changes: int) -> list[Path]:
    """*count* frames of a clip, numbered from *first*."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{first + time:03}{suffix}" for time in range(count)]
    for time, path in enumerate(paths):
        Image.fromarray(frame(time, **changes)).save(path)
    return paths


def write_set(root: Path, train: tuple[int, ...], test: int, anomalous: tuple[int, ...]) -> Path:
    """A set in the layout of ``clips``: normal clips of so many frames, and one test clip, in some of whose frames the
    square is dark and moves fast."""
    for number, count in enumerate(train, 1):
        write_clip(root / f"training/frames/{number:02}", count, start=2 + 5 * number, seed=number)
    paths = write_clip(root / "testing/frames/01", test, start=4)
    masks = root / "testing/masks/01"
    masks.mkdir(parents=True)
    for time, path in enumerate(paths):
        mask = np.zeros(SIDES, np.uint8)
        if time in anomalous:
            Image.fromarray(frame(time, speed=7, shade=5)).save(path)
            mask[18:28, (2 + 7 * time) % 54 :][:, :8] = 255
        Image.fromarray(mask).save(masks / f"{path.stem}.png")
    labels = [int(time in anomalous) for time in range(test)]
    (root / "frame_labels.json").write_text(json.dumps({"01": labels}))
    return root
