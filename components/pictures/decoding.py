"""From file bytes to RGB pixels; needs only numpy and Pillow, so that scoring runs without torch.

A bundle carries a copy of this file for its runner: nothing else may be imported but ``DataError``, ``framing``
and ``rules``.
"""

import io
import itertools
import math
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from components.core.errors import DataError
from components.pictures.framing import EXIF, ORIENTATION, ShapeError, framed, stored_turn, upright
from components.pictures.rules import DEFAULT as DEFAULT
from components.pictures.rules import MAX_PIXELS as MAX_PIXELS
from components.pictures.rules import Decoding as Decoding

# Nothing that starts another program (EPS, PDF) and nothing that cameras do not write.
FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "BMP", "DIB", "WEBP", "JPEG2000", "AVIF", "PPM", "GIF", "TGA", "PCX", "SGI")
Image.init()
SUFFIXES = frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)
READERS = tuple(kind for kind in FORMATS if kind in Image.OPEN)  # MPO is opened by the reader of JPEG
WORD = 65535.0  # white of 16-bit files that say nothing else
PAGE_KIND, OLD_PAGE_KIND, SUB_PICTURES, BITS, PHOTOMETRIC = 254, 255, 330, 258, 262
LARGEST_VALUE = (341, 281)  # TIFF's SMaxSampleValue and MaxSampleValue
# Broken EXIF is read as far as it can be, and sizes are judged here: Pillow's remarks on either are no news.
warnings.filterwarnings("ignore", module=r"PIL\.")


LIMIT = "data.max_pixels"  # the setting that bounds the pictures of a data set


class Picture(NamedTuple):
    """RGB pixels, uint8 (H, W, 3); Pillow's name of the stored mode; the EXIF orientation that was undone."""

    pixels: np.ndarray
    mode: str
    turn: int


def decode(source: Path | bytes, name: str | None = None, rules: Decoding = DEFAULT, limit: str = LIMIT) -> np.ndarray:
    """Decode an image file to RGB: uint8, (H, W, 3), EXIF rotation applied, alpha dropped, more bits scaled to 8, what
    lies outside the region of interest replaced by one grey.

    *name* is used in messages, *limit* is the setting they name that bounds the size. Raises DataError, and nothing
    else, when the file cannot be read, is no complete image, holds several pictures or is too large.
    """
    return picture(source, name, rules, limit).pixels


def picture(source: Path | bytes, name: str | None = None, rules: Decoding = DEFAULT, limit: str = LIMIT) -> Picture:
    """``decode``, with what else the file tells."""
    with _opened(source, name or _name(source), rules, limit) as (image, stream):
        depth, turn = _depth(image), _loaded(image)
        mode = "I;16" if image.mode.startswith("I;16") else image.mode  # whatever the order of its bytes
        pixels = _levels(image, stream, depth, rules) if depth else np.array(image.convert("RGB"))
        return Picture(framed(upright(pixels, turn), rules.roi), mode, turn)


def extent(source: Path | bytes, rules: Decoding = DEFAULT) -> int:
    """Pixels of a file by its header; 0 of one that ``decode`` refuses."""
    try:
        with _opened(source, _name(source), rules, LIMIT) as (image, _):
            return image.width * image.height
    except DataError:
        return 0


def largest(source: Path, rules: Decoding = DEFAULT) -> float | None:
    """The largest value of a file with more than 8 bits that does not say what white is; None of any other file.

    It is 1 for real numbers up to 1 and a whole number from 2 on else: ``full_scale`` tells white. Raises DataError.
    """
    with _opened(source, _name(source), rules, LIMIT) as (image, stream):
        depth = _depth(image)
        if not depth:
            return None
        values, told = _values(image, stream, depth)
        return None if told else _top(image, values)


def full_scale(top: float) -> float:
    """The white that a largest value tells: 1 of real numbers, else the next 2^k - 1 from 255 on."""
    return 1.0 if top <= 1 else float(2 ** max(8, math.ceil(top).bit_length()) - 1)


def _name(source: Path | bytes) -> str:
    return "image" if isinstance(source, bytes) else str(source)


@contextmanager
def _opened(
    source: Path | bytes, name: str, rules: Decoding, limit: str
) -> Iterator[tuple[ImageFile.ImageFile, IO[bytes]]]:
    """The one boundary around decoders: whatever they raise on a file becomes a DataError that names it."""
    name = name.encode("utf-8", "backslashreplace").decode()  # bytes of a file name that are no UTF-8
    try:
        with _stream(source) as stream:
            _permit(rules.max_pixels)
            with _image(stream) as image:
                _require_size(image, rules, limit)
                _require_single(image, stream)
                yield image, stream
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except ShapeError as error:
        raise DataError(f"{name}: {error}") from None
    except UnidentifiedImageError:
        raise DataError(f"{name}: is not an image Pillow can read; remove it or export it again") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # met when the header is read
        raise DataError(f"{name}: {_too_large('it has', rules, limit)}") from None
    except MemoryError as error:
        raise DataError(f"{name}: does not fit into the memory that is free; reduce the image") from error
    except Exception as error:
        raise DataError(f"{name}: cannot be decoded ({_reason(error)}); export it again") from error


def _reason(error: Exception) -> str:
    said = " ".join(str(error).split())
    return said if isinstance(error, OSError | SyntaxError | ValueError) and said else f"{type(error).__name__} {said}"


def _stream(source: Path | bytes) -> IO[bytes]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        path = Path(source)
        kind = path.stat().st_mode
        if stat.S_ISREG(kind):
            return path.open("rb")
    except FileNotFoundError:
        raise DataError("is not there, or is a link to nowhere; bring the file or remove the link") from None
    except PermissionError:
        raise DataError("may not be read; give this user the right to read it") from None
    except (OSError, ValueError) as error:
        raise DataError(f"cannot be read ({getattr(error, 'strerror', None) or error}); copy it again") from error
    raise DataError(f"is {'a folder' if stat.S_ISDIR(kind) else 'no regular file'}; give an image file")


def _image(stream: IO[bytes]) -> ImageFile.ImageFile:
    """The file opened, its pixels not yet read. Pillow looks into the EXIF of a JPEG and may fail on what it finds."""
    try:
        return Image.open(stream, formats=READERS)
    except Exception:
        stream.seek(0)
        content = stream.read()
        place = content.find(EXIF)
        if place < 0 or not content.startswith(b"\xff\xd8"):
            raise
    image = Image.open(io.BytesIO(content.replace(EXIF, b"none\0\0")), formats=READERS)
    image.info["exif"] = content[place : place + 65536]  # the longest that a JPEG can hold
    return image


def _permit(pixels: int) -> None:
    """Pillow's own limit, one for the process, must not be met before ours; it only ever grows: threads share it."""
    if Image.MAX_IMAGE_PIXELS is not None and pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = pixels


def _require_size(image: Any, rules: Decoding, limit: str) -> None:
    sizes: list[tuple[int, int]] = [image.size]
    if image.format == "TIFF":  # a tile is a buffer of its own, however small the picture
        sizes.append((_number(image.tag_v2.get(322)), _number(image.tag_v2.get(323))))
    if any(width * height > rules.max_pixels for width, height in sizes):
        raise DataError(_too_large(f"{image.width} x {image.height} are", rules, limit))
    if not image.width * image.height:
        raise DataError("has no pixels; export it again")


def _too_large(what: str, rules: Decoding, limit: str) -> str:
    how = f"`loupe fit --set {limit}=...`" if limit == LIMIT else "params.yaml"
    return f"{what} more pixels than the limit of {rules.max_pixels}; reduce the image or raise {limit} ({how})"


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _require_single(image: Any, stream: IO[bytes]) -> None:
    """Move a TIFF to its one full picture; refuse a file that holds several.

    The further pictures in the MPO files of phones are previews and views of a second lens.
    """
    if image.format == "TIFF":
        pages = _full_pages(stream) if image.is_animated or _is_reduced(image) else [0]
        count = len(pages)
        if not pages:
            raise DataError("holds a reduced preview only; export the picture itself")
    else:
        count = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
    if count > 1:
        raise DataError(f"holds {count} pictures; save each as a file of its own")
    if image.format == "TIFF" and pages[0]:
        image.seek(pages[0])


def _full_pages(stream: IO[bytes]) -> list[int]:
    """The pages of a TIFF that are neither previews nor masks; what comes after a broken page is none."""
    # Opened for this alone: a page that cannot be read leaves the reader in no state to go back.
    with Image.open(stream, formats=("TIFF",)) as opened:
        probe: Any = opened
        lone, elsewhere = not probe.is_animated, SUB_PICTURES in probe.tag_v2
        pages = [] if _is_reduced(probe) else [0]
        for number in itertools.count(1):
            try:
                probe.seek(number)
            except Exception as error:  # EOFError after the last page
                del error
                break
            if not _is_reduced(probe):
                pages.append(number)
    # Some programs mark a lone picture as reduced; where the full one lies elsewhere in the file, it is a preview.
    return [0] if lone and not elsewhere else pages


def _is_reduced(page: Any) -> bool:
    kind = _number(page.tag_v2.get(PAGE_KIND))
    return bool(kind & 0b101) or _number(page.tag_v2.get(OLD_PAGE_KIND)) == 2


def _loaded(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation of *image*, after its samples were read as they are stored."""
    if image.format == "TIFF":
        turn = _turn(image)  # loading forgets it
        image.load_end = lambda: None  # type: ignore[method-assign]  # it would turn too, and fails on broken tags
        image.load()
        return turn
    image.load()  # here, where a broken file is told: to ask a PNG for its EXIF would decode it in silence
    return _turn(image)


def _turn(image: ImageFile.ImageFile) -> int:
    """The EXIF orientation, 1 where there is none or it cannot be read; other tags are often broken and not asked."""
    try:
        found = stored_turn(image.info.get("exif") or b"") or image.getexif().get(ORIENTATION)
    except Exception as error:
        del error  # whatever is wrong with it: the picture is taken as it is stored
        return 1
    return next((turn for turn in range(2, 9) if found == turn), 1)


def _depth(image: ImageFile.ImageFile) -> Literal["", "grey", "colour"]:
    """What has samples of more than 8 bits, by the header alone; to be asked before anything is decompressed."""
    if image.mode.startswith(("I", "F")):
        return "grey"
    layouts = [str(_first(tile.args) or "") for tile in image.tile]
    return "colour" if any(layout.startswith("RGB") and ";16" in layout for layout in layouts) else ""


def _levels(image: ImageFile.ImageFile, stream: IO[bytes], depth: str, rules: Decoding) -> np.ndarray:
    """Deep samples as 8-bit RGB: from 0 to white, which the file tells, the rules, or the kind of file.

    A 16-bit file that nothing is known of counts up to 65535: one that uses the lowest values only comes out dark, and
    nothing in it says whether the scene is.
    """
    values, white = _values(image, stream, depth)
    if white is None:
        white = rules.white or _usual_white(image, values)
        if (values > white).mean() > 0.5:
            raise DataError(
                f"is for the most part brighter than white, which is {white:g} here; export it with as many bits as "
                "the other pictures, or fit with --set data.white=..."
            )
    if image.format == "TIFF" and _first(image.tag_v2.get(PHOTOMETRIC)) == 0:  # type: ignore[attr-defined]
        values = np.float32(white) - values  # zero is white
    levels = np.clip(values / np.float32(white / 255), 0, 255).round().astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=2) if levels.ndim == 2 else levels


def _usual_white(image: ImageFile.ImageFile, values: np.ndarray) -> float:
    """White by the kind of file alone: 65535 for 16 bits, else the scale that the largest value lies on."""
    if image.mode not in ("I", "F") or image.format == "PNG":  # which older Pillow reads as 32 bits
        return WORD
    return full_scale(_top(image, values))


def _top(image: ImageFile.ImageFile, values: np.ndarray) -> float:
    """The largest value; 1 for real numbers that go beyond it by rounding or filtering only."""
    top = float(values.max())
    return 1.0 if image.mode == "F" and top < 2 else max(2.0, math.ceil(top))


def _values(image: ImageFile.ImageFile, stream: IO[bytes], depth: str) -> tuple[np.ndarray, float | None]:
    """Samples as float32, (H, W) or (H, W, 3), and the value of white if the file itself tells it."""
    values = np.asarray(image.copy()).astype(np.float32)  # copied: without load_end, a turned TIFF's size is wrong
    if depth == "colour":
        values = values[..., :3] * 256 + _low_bytes(image, stream)
    if image.mode == "F":
        if not np.isfinite(values).any():
            raise DataError("has no finite value; export it again")
        values = np.nan_to_num(values, nan=0.0, posinf=values[np.isfinite(values)].max())
    return values, _told_white(image, stream, values)


def _low_bytes(image: ImageFile.ImageFile, stream: IO[bytes]) -> np.ndarray:
    """The lower halves of 16-bit colour samples: Pillow keeps the upper ones, so it is told the other byte order."""
    with Image.open(stream, formats=READERS) as other:
        other.seek(image.tell())
        other.load_end = lambda: None  # type: ignore[method-assign]
        other.tile = [tile._replace(args=_exchanged(tile.args)) for tile in other.tile]
        return np.asarray(other.copy())[..., :3]


def _exchanged(args: Any) -> Any:
    layout = str(_first(args) or "")  # how samples are laid out, by Pillow's name
    order = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}[layout[-1]]
    swapped = layout[:-1] + order
    return (swapped, *args[1:]) if isinstance(args, tuple) else swapped


def _told_white(image: ImageFile.ImageFile, stream: IO[bytes], values: np.ndarray) -> float | None:
    if image.format == "JPEG2000" or (image.format == "PPM" and image.mode != "F"):
        return WORD  # Pillow has scaled them by what the header says
    if image.format == "PNG":
        return _significant(stream, values)
    if image.format != "TIFF":
        return None
    tags = image.tag_v2  # type: ignore[attr-defined]
    bits = _first(tags.get(BITS))
    if isinstance(bits, int) and 8 < bits < 16:
        return float(2**bits - 1)
    said = [float(v) for v in (_first(tags.get(tag)) for tag in LARGEST_VALUE) if isinstance(v, int | float)]
    # Some programs write the picture's own largest value here, or what fits into the samples: neither is white.
    fitting = [v for v in said if v != WORD and v == full_scale(v) and v >= values.max()]
    return fitting[0] if fitting else None


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, tuple) and value else value


def _significant(stream: IO[bytes], values: np.ndarray) -> float | None:
    """White by a PNG's sBIT chunk.

    The standard wants the bits at the upper end of the sample, and many cameras' programs leave them at the lower.
    Samples at the upper end are beyond the lower, or multiples of the step between two of them.
    """
    bits = _sbit(stream)
    if not bits or not 8 < bits < 16:
        return WORD if bits == 16 else None
    low = 2.0**bits - 1
    return WORD if values.max() > low or not (values % 2 ** (16 - bits)).any() else low


def _sbit(stream: IO[bytes]) -> int | None:
    place = stream.seek(8)
    while True:
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
            return None
        if head[4:] == b"sBIT":
            return (stream.read(1) or b"\0")[0]
        place += 12 + int.from_bytes(head[:4], "big")


def stored(source: Path, rules: Decoding = DEFAULT) -> tuple[Image.Image, str, int]:
    """A file's samples as Pillow reads them, not turned, with its format and EXIF orientation: what masks are read by.

    Raises DataError, and nothing else, as ``decode`` does.
    """
    with _opened(source, _name(source), rules, LIMIT) as (image, _):
        turn = _loaded(image)
        return image.copy(), str(image.format), turn
