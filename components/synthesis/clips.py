"""Anomalies in clips, for checking only: what is drawn on a frame is in the frames before it too.

A defect that showed up in the last frame alone would be found by the difference of two frames, and would choose
whatever tells these apart. Local anomalies travel, as a thing that moves does; wide ones stand. ``fast`` draws nothing:
it plays the clip at a multiple of its speed, which no single frame gives away.

Each is a folder of files that are the frames of a clip, so that it is read as a clip is.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from components.pictures.clips import past
from components.pictures.decoding import Decoding
from components.synthesis.blending import Synthetic
from components.synthesis.strategies import LOCAL

FAST = "fast"
PAST = 4  # frames before the one that is scored; a detector that looks at more sees the first of them repeated
TIMES = (2, 3, 4)  # the speed of ``fast``
SPEED = (0.004, 0.025)  # of the shorter side, by a frame: 1 to 6 pixels of 240
NOTICED = 10  # grey levels by which a pixel must differ to belong to what moved

Read = Callable[[Path], np.ndarray]  # one frame, uint8 (H, W, 3)


class Clip(NamedTuple):
    """Frames, uint8 (PAST + 1, H, W, 3), oldest first, and what is anomalous in the last of them."""

    frames: np.ndarray
    made: Synthetic


def carried(frames: np.ndarray, made: Synthetic, strategy: str, rng: np.random.Generator) -> Clip:
    """*made* on the last of *frames*, uint8 (T, H, W, 3), in all of them: a local one travels, a wide one stands."""
    change = made.image.astype(np.int16) - frames[-1]
    step = _velocity(frames.shape[1:3], rng) if strategy in LOCAL else np.zeros(2)
    count = len(frames)
    moved = [_shifted(change, -step * (count - 1 - at)) for at in range(count)]
    return Clip(np.clip(frames + np.stack(moved), 0, 255).astype(np.uint8), made)


def fast(target: Path, rules: Decoding, rng: np.random.Generator, read: Read) -> Clip | None:
    """The window that ends with *target* at a multiple of its speed; None where the clip has no such past or nothing
    moves. The mask is what the last step changed."""
    times = int(rng.choice(TIMES))
    steps = [*past(target, PAST, rules.stride * times), target]
    if len(set(steps)) < len(steps):  # its past begins before the clip does
        return None
    found = np.stack([read(path) for path in steps])
    changed = np.abs(found[-1].astype(np.int16) - found[-2]).max(-1) > NOTICED
    return Clip(found, Synthetic(found[-1], changed, float(times), float(changed.mean()))) if changed.any() else None


def _velocity(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Pixels by a frame, down and to the right."""
    speed, angle = min(shape) * rng.uniform(*SPEED), rng.uniform(0, 2 * np.pi)
    return speed * np.array([np.sin(angle), np.cos(angle)])


def _shifted(change: np.ndarray, by: np.ndarray) -> np.ndarray:
    """(H, W, 3) moved by whole pixels; nothing comes in at the rim."""
    result = np.zeros_like(change)
    (into, out), (across, along) = (
        _overlap(int(step), side) for step, side in zip(by.round(), change.shape, strict=False)
    )
    result[into, across] = change[out, along]
    return result


def _overlap(step: int, side: int) -> tuple[slice, slice]:
    """Where what is moved by *step* lands, and where it comes from."""
    kept = max(0, side - abs(step))
    into = slice(max(0, step), max(0, step) + kept)
    return into, slice(max(0, -step), max(0, -step) + kept)
