"""Masks of defects, whatever tool wrote them: which pixels count, what cannot be true, and the working size.

A row of a data set names its mask files in ``mask`` and how they are read in ``mask_rule``: null or ``as is``, the
words ``turn=6`` (turned as that EXIF orientation says) and ``inverted``, or ``unknown: REASON``. Code of the line reads
none.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from PIL import Image

from components.core.artefacts import file_hash
from components.core.errors import DataError
from components.pictures.decoding import DEFAULT, Decoding, stored
from components.pictures.framing import region, upright
from components.pictures.tiles import Box

SEPARATOR, UNKNOWN, AS_IS = "|", "unknown: ", "as is"
CLASSES = 16  # a mask with more levels than this that reaches white is a soft one, not one of classes
NEARLY_WHITE = 0.9  # of the largest value of its kind of file
FAINT = 1 / 8  # of white: below it compression noise and class numbers look alike
INVERTED_AREA, INVERTED_RIM = 0.5, 0.75  # shares of the picture and of its rim beyond which a mask looks inverted
TINY = 4  # pixels of the working size across which a defect is nearly nothing
EMPTY, WHOLE, INVERTED, UNREADABLE = "empty mask", "marks the whole picture", "looks inverted", "cannot be read"
OTHER_SIZE, TURN = "size differs from the picture", "may or may not be turned as the picture is"
ADVICE = {
    EMPTY: "mark the defect, or leave it so",
    WHOLE: "draw the defect, or say data.masks=marked (`loupe fit --set data.masks=marked`) if it is right",
    INVERTED: "say data.masks=inverted or data.masks=marked (`loupe fit --set data.masks=inverted`)",
    UNREADABLE: "export the mask again",
    OTHER_SIZE: "export the mask at the picture's own size",
    TURN: "say data.mask_turn=stored or data.mask_turn=shown (`loupe fit --set data.mask_turn=shown`)",
}
Masks = Literal["auto", "marked", "inverted"]
MaskTurn = Literal["auto", "stored", "shown"]


class Region(NamedTuple):
    """The smaller side of a connected region: in pixels of the picture, and as a share of the picture's own side."""

    pixels: float
    share: float


@dataclass(frozen=True)
class Sizes:
    """Of all regions: how many, the middle side in pixels and as a share of the picture's, and the smallest share."""

    count: int
    pixels: float
    share: float
    least: float


@dataclass(frozen=True)
class Reading:
    """How the masks of one picture are to be read, and the regions they mark."""

    rule: str | None
    regions: tuple[Region, ...] = ()


def mask_paths(mask: Any) -> tuple[str, ...]:
    """The paths in a row's ``mask``; none for a row without."""
    return tuple(mask.split(SEPARATOR)) if isinstance(mask, str) and mask else ()


def is_known(mask: Any, rule: Any) -> bool:
    """Whether a row says which of its pixels are anomalous."""
    return bool(mask_paths(mask)) and not (isinstance(rule, str) and rule.startswith(UNKNOWN))


def reason(rule: Any) -> str | None:
    """Why the truth of a row with masks is unknown; None where it is known."""
    return rule.removeprefix(UNKNOWN) if isinstance(rule, str) and rule.startswith(UNKNOWN) else None


@dataclass(frozen=True)
class Mask:
    """The mask of one row below its data set's folder *data*."""

    data: Path
    mask: str
    rule: str | None = None
    rules: Decoding = DEFAULT

    @property
    def key(self) -> Any:
        """What determines its pixels."""
        hashes = [file_hash(self.data / path) for path in mask_paths(self.mask)]
        return [hashes, self.rule] if len(hashes) > 1 or isinstance(self.rule, str) else hashes[0]

    def load(self, size: int, box: Box | None = None) -> np.ndarray:
        """Bool (size, size), of a square of the picture with *box*; nothing is marked where the truth is unknown."""
        found = truth(self.data, self.mask, self.rule, self.rules)
        if found is None:
            return np.zeros((size, size), bool)
        return at_size(found if box is None else box.of(found), size)


def truth(data: Path, mask: Any, rule: Any = None, rules: Decoding = DEFAULT) -> np.ndarray | None:
    """What a row marks inside the region of interest, bool (H, W) at the masks' own size.

    None where it has no mask or its truth is unknown.
    """
    if not is_known(mask, rule):
        return None
    words = rule.split() if isinstance(rule, str) else []
    turn = next((int(word.removeprefix("turn=")) for word in words if word.startswith("turn=")), 1)
    found = [_shown(*_read(data / path, rules), "inverted" in words) for path in mask_paths(mask)]
    marked = upright(_united(found), turn)
    counts = region(rules.roi, marked.shape)
    return marked if counts is None else marked & counts


def marked(path: Path, rules: Decoding = DEFAULT) -> np.ndarray:
    """What one mask file marks, bool (H, W), turned as it says itself. Raises DataError."""
    return _shown(*_read(path, rules), False)


def load(data: Path, mask: Any, rule: Any, size: int, rules: Decoding = DEFAULT) -> np.ndarray | None:
    """``truth`` at the working size, bool (size, size); None as well where nothing is marked."""
    found = truth(data, mask, rule, rules)
    return at_size(found, size) if found is not None and found.any() else None


def at_size(mask: np.ndarray, size: int) -> np.ndarray:
    """*mask* as bool (size, size): a cell is anomalous when any pixel it touches is, so that no defect vanishes."""
    return _cells(_cells(mask, size).T, size).T


def _cells(mask: np.ndarray, size: int) -> np.ndarray:
    """Rows of *mask* put together into *size* rows; repeated where there are fewer."""
    count = len(mask)
    if count <= size:
        return mask[(2 * np.arange(size) + 1) * count // (2 * size)]
    edges = np.arange(size + 1) * count // size
    found = np.logical_or.reduceat(mask, edges[:-1], axis=0)
    shared = (np.arange(1, size) * count) % size > 0  # a row that two cells touch is in both
    found[:-1][shared] |= mask[edges[1:-1][shared]]
    return np.asarray(found)


def read_as(
    paths: Sequence[Path], shown: tuple[int, int], turn: int, masks: Masks, mask_turn: MaskTurn, rules: Decoding
) -> Reading:
    """How the masks of a picture are read that is *shown* (width, height) large, after its EXIF *turn*."""
    try:
        read = [_read(path, rules) for path in paths]
    except DataError as error:
        return Reading(f"{UNKNOWN}{UNREADABLE} ({error})")
    found = [_shown(marked, own, masks == "inverted") for marked, own in read]
    if len({mask.shape for mask in found}) > 1:
        return Reading(f"{UNKNOWN}{OTHER_SIZE} (its masks differ in size)")
    needed = _turn_of(found[0].shape[::-1], shown, turn, any(own != 1 for _, own in read), mask_turn)
    if isinstance(needed, str):
        return Reading(UNKNOWN + needed)
    problem = _implausible(found, masks)
    if problem:
        return Reading(UNKNOWN + problem)
    words = [*([f"turn={needed}"] if needed != 1 else []), *(["inverted"] if masks == "inverted" else [])]
    return Reading(" ".join(words) or None, regions(upright(_united(found), needed)))


def _turn_of(size: tuple[int, ...], shown: tuple[int, int], turn: int, own: bool, said: MaskTurn) -> int | str:
    """The EXIF orientation to apply to a mask that is *size* large, or why that is not known."""
    as_stored = shown[::-1] if turn >= 5 else shown
    differs = f"{OTHER_SIZE} ({size[0]} x {size[1]}, not {shown[0]} x {shown[1]})"
    if turn == 1 or own or said == "shown":  # a mask with an orientation of its own has been turned by it
        return 1 if size == shown else differs
    if said == "stored" or (size == as_stored != shown):
        return turn if size == as_stored else differs
    if size != shown:
        return differs
    return TURN if as_stored == shown else 1


def _implausible(found: list[np.ndarray], masks: Masks) -> str | None:
    marked = _united(found)
    if not marked.any():
        return EMPTY
    if masks == "marked":
        return None
    if marked.all():
        return WHOLE
    return INVERTED if any(map(_looks_inverted, found)) else None  # also one that is not, where all are declared so


def _looks_inverted(mask: np.ndarray) -> bool:
    rim = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]])
    return bool(mask.mean() > INVERTED_AREA and rim.mean() > INVERTED_RIM)


def regions(mask: np.ndarray) -> tuple[Region, ...]:
    """The connected regions of *mask*, bool (H, W), by their smaller side."""
    return numbered(mask)[1]


def numbered(mask: np.ndarray) -> tuple[np.ndarray, tuple[Region, ...]]:
    """The connected regions of *mask*, bool (H, W): int32 (H, W) with the number of each from 1, and their sizes."""
    from scipy.ndimage import find_objects, label

    height, width = mask.shape
    found = np.zeros(mask.shape, np.int32)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return found, ()
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    label(mask[box], np.ones((3, 3), int), output=found[box])
    sides = [(y.stop - y.start, x.stop - x.start) for y, x in find_objects(found[box])]
    return found, tuple(Region(float(min(h, w)), min(h / height, w / width)) for h, w in sides)


def sizes(found: Sequence[Region]) -> Sizes | None:
    """How large regions are; None of none."""
    if not found:
        return None
    pixels, shares = np.array(found).T
    return Sizes(len(found), float(np.median(pixels)), float(np.median(shares)), float(shares.min()))


def tiny_defects(found: Sizes | None, size: int) -> str | None:
    """A sentence when the middle region is under 4 pixels across at the working size, else None."""
    if found is None or size * found.share >= TINY:
        return None
    return (
        f"defects of about {found.pixels:.0f} pixels become {size * found.share:.1f} of the {size} x {size} that the "
        f"detector sees (the smallest {size * found.least:.1f}); crop or tile the pictures"
    )


def _united(found: list[np.ndarray]) -> np.ndarray:
    return np.logical_or.reduce(found)


def _shown(marked: np.ndarray, own: int, inverted: bool) -> np.ndarray:
    return upright(~marked if inverted else marked, own)


def _read(path: Path, rules: Decoding) -> tuple[np.ndarray, int]:
    """Which pixels of a mask file count, as stored, and the EXIF orientation it has itself. Raises DataError."""
    image, kind, turn = stored(path, rules)
    if image.mode in ("1", "P"):
        return np.asarray(image) > 0, turn
    levels, white = _values(image)
    lossy = kind in ("JPEG", "MPO") or (kind == "WEBP" and b"VP8L" not in _head(path))
    if not lossy and not _is_soft(levels, white, kind):
        return levels > 0, turn
    top = float(levels.max())
    if lossy and 0 < top < FAINT * white:
        raise DataError(f"{path}: is a {kind} file as dark as its own noise; export the mask as PNG")
    return (levels >= top / 2) & (levels > 0), turn


def _values(image: Image.Image) -> tuple[np.ndarray, float]:
    """The largest of a pixel's colours, and white; where all have one colour, the opacity tells."""
    if image.mode.startswith(("I", "F")):
        values = np.nan_to_num(np.asarray(image).astype(np.float32))
        return values, 1.0 if image.mode == "F" and values.max() <= 1 else 255.0 if values.max() <= 255 else 65535.0
    if image.mode not in ("L", "LA", "RGB", "RGBA"):
        image = image.convert("RGBA" if image.mode in ("PA", "La", "RGBa") else "RGB")
    samples = np.asarray(image)
    if samples.ndim == 2:
        return samples, 255.0
    if image.mode == "RGB":
        return samples.max(2), 255.0
    colour, opacity = samples[..., :-1], samples[..., -1]
    if (opacity == opacity[0, 0]).all():
        return colour.max(2), 255.0
    flat = (colour == colour[0, 0]).all()
    return (opacity if flat else np.where(opacity > 0, colour.max(2), 0)), 255.0


def _is_soft(levels: np.ndarray, white: float, kind: str) -> bool:
    """Whether a mask has grey edges: when it has many levels up to nearly white."""
    bright, may_lose = levels.max() >= NEARLY_WHITE * white, kind in ("JPEG2000", "AVIF")
    if not bright and not may_lose:
        return False
    return len(np.unique(levels)) > (2 if bright and may_lose else CLASSES)


def _head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(4096)  # where a WebP says how it is compressed
