"""What of a decoded picture counts: turned as it is shown, and the region of interest within it.

A region of interest is a text, so that it goes wherever the rules of decoding go: the size of the pictures that it was
drawn on (``640x480``, or ``any``), a colon, and a PNG of one bit a pixel in base64 whose white counts. What lies
outside becomes one constant right after decoding: no detector can learn, score or alarm what never changes.

A bundle carries a copy of this file for its runner: nothing of the project may be imported.
"""

import base64
import io
import struct
from functools import lru_cache

import numpy as np
from PIL import Image

EXIF = b"Exif\0\0"
ORIENTATION = 0x112
OUTSIDE = 128  # every pixel outside the region: mid-grey, the mildest edge to dark and to bright products
ANY = "any"  # in place of a size: the region fits pictures of every shape
SHAPES = 0.02  # by how much the ratio of a picture's sides may differ from that of the region
OTHER_SHAPE = "has another shape than the region of interest"
LINE = 600  # pixels of a picture's longer side for each pixel that the line around the region is wide


class ShapeError(ValueError):
    """The region of interest does not fit the picture; the message says their sizes."""


def stored_turn(exif: bytes) -> int | None:
    """The orientation where it stands as the standard says; Pillow reads in order and may fail before it."""
    block = exif.removeprefix(EXIF).removeprefix(EXIF)
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return None
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    (count,) = struct.unpack_from(f"{order}H", block, start)
    for place in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, length, value = struct.unpack_from(f"{order}HHIH", block, place)
        if (tag, kind, length) == (ORIENTATION, 3, 1):
            return int(value)
    return None


def upright(pixels: np.ndarray, turn: int) -> np.ndarray:
    """*pixels* (H, W) or (H, W, 3) as an EXIF orientation shows them; 5 to 8 are stored with the axes exchanged."""
    if turn == 1:
        return pixels
    shown = pixels.swapaxes(0, 1) if turn >= 5 else pixels
    rows, columns = -1 if turn in (3, 4, 7, 8) else 1, -1 if turn in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(shown[::rows, ::columns])


def framed(pixels: np.ndarray, roi: str | None) -> np.ndarray:
    """*pixels* (H, W, 3) uint8 with OUTSIDE wherever they lie outside the region. Raises ShapeError."""
    if roi is None:
        return pixels
    return np.where(inside(roi, *pixels.shape[:2])[..., None], pixels, np.uint8(OUTSIDE))


def region(roi: str | None, shape: tuple[int, ...]) -> np.ndarray | None:
    """``inside`` for a picture of *shape* (H, W, ...); None where everything counts."""
    return None if roi is None else inside(roi, shape[0], shape[1])


@lru_cache(4)
def inside(roi: str, height: int, width: int) -> np.ndarray:
    """Bool (height, width), read-only: where the region lies in a picture of that size. Raises ShapeError."""
    size, _ = drawn(roi)
    if size and abs(width * size[1] / (height * size[0]) - 1) > SHAPES:
        raise ShapeError(f"{OTHER_SHAPE} ({width} x {height}, not like {size[0]} x {size[1]}); give one like those")
    return scaled(roi, height, width)


@lru_cache(8)
def scaled(roi: str, height: int, width: int) -> np.ndarray:
    """``inside`` of what a picture was resized to, whatever its shape: each pixel takes its nearest of the region."""
    found = nearest(drawn(roi)[1], height, width)
    found.setflags(write=False)  # it is everyone's
    return found


def nearest(bits: np.ndarray, height: int, width: int) -> np.ndarray:
    """*bits*, bool (h, w), at another size: each pixel takes its nearest; where none is left, all that are touched."""
    rows, columns = ((2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip((height, width), bits.shape, strict=True))
    found = bits[rows][:, columns]
    if not found.any():  # finer than the grid
        y, x = np.nonzero(bits)
        found[y * height // bits.shape[0], x * width // bits.shape[1]] = True
    return np.asarray(found)


@lru_cache(8)
def drawn(roi: str) -> tuple[tuple[int, int] | None, np.ndarray]:
    """The size (W, H) that a region was drawn for, None for any, and the region itself, bool (h, w), both in it."""
    size, _, content = roi.partition(":")
    with Image.open(io.BytesIO(base64.b64decode(content, validate=True)), formats=("PNG",)) as image:
        bits = np.array(image.convert("1"))
    if size == ANY:
        return None, bits
    width, height = map(int, size.split("x"))
    return (width, height), bits


def shrunk(mask: np.ndarray, steps: int = 1) -> np.ndarray:
    """*mask* (H, W) without the pixels that touch what is not marked; the rim of the picture takes nothing away."""
    for _ in range(steps):
        before, mask = mask, mask.copy()
        mask[1:] &= before[:-1]
        mask[:-1] &= before[1:]
        mask[:, 1:] &= before[:, :-1]
        mask[:, :-1] &= before[:, 1:]
    return mask


def outline(mask: np.ndarray) -> np.ndarray:
    """Bool (H, W): a thin line along the border of *mask*, within it."""
    return mask & ~shrunk(mask, max(1, round(max(mask.shape) / LINE)))


def quiet(maps: np.ndarray, roi: str | None) -> np.ndarray:
    """Heat maps (..., H, W) that hold, outside the region, the lowest value that each has inside."""
    if roi is None:
        return maps
    counts = scaled(roi, *maps.shape[-2:])
    return np.where(counts, maps, maps[..., counts].min(-1)[..., None, None])


def values_inside(maps: np.ndarray, roi: str | None) -> np.ndarray:
    """The values (N, k) of heat maps (N, H, W) that lie inside the region."""
    return maps.reshape(len(maps), -1) if roi is None else maps[:, scaled(roi, *maps.shape[1:])]
