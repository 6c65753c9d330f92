"""The sides of frames: whole clips, or one block of a clip where there is one; never frame by frame.

Neighbouring frames are near copies. Frames drawn one by one would calibrate a model on what it has learned.
"""

import logging
import math

import pandas as pd

from components.datasets.duplicates import Copies
from components.datasets.videos import clip_of

log = logging.getLogger("loupe")
GAP = 16  # frames between what is learned and what calibrates, where both are of one clip; more than a window holds


def clip_sides(table: pd.DataFrame, share: float, share_of) -> tuple[list[str], list[str | None]]:  # type: ignore[no-untyped-def]
    """The side of each row and, of those in the gap between two sides, why they are excluded.

    Of each group's training clips those that *share_of* their names puts first calibrate, *share* of them and one at
    least; of a lone clip the last frames do.
    """
    sides = pd.Series("test", table.index)
    notes = pd.Series([None] * len(table), table.index, dtype=object)
    train = table[table["role"] != "test"]
    for group, part in train.groupby("group"):
        clips = part["image_id"].map(clip_of)
        names = sorted(set(clips), key=lambda name: (share_of(name), name))
        sides[part.index] = "fit"
        if len(names) == 1:
            _block(part.index, share, sides, notes)
            log.info("%s: one clip, whose last frames calibrate", group)
            continue
        chosen = names[: min(len(names) - 1, max(1, round(share * len(names))))] if share > 0 else []
        sides[part.index[clips.isin(chosen)]] = "calibrate"
    return list(sides), list(notes)


def _block(rows: pd.Index, share: float, sides: pd.Series, notes: pd.Series) -> None:
    last = math.ceil(share * len(rows))
    if not last:
        return
    sides[rows[-last:]] = "calibrate"
    between = rows[max(0, len(rows) - last - GAP) : len(rows) - last]
    sides[between], notes[between] = "excluded", "between the frames that are learned and those that calibrate"


def equal_files(table: pd.DataFrame) -> Copies:
    """Frames of training clips that are the very files of test frames; likeness says nothing among frames."""
    digests = [str(digest) for digest in table["sha256"]]
    first: dict[str, int] = {}
    for row, role in enumerate(table["role"]):
        if role == "test":
            first.setdefault(digests[row], row)
    return Copies([first.get(digest, row) for row, digest in enumerate(digests)], [], [])
