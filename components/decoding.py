"""From file bytes to RGB pixels and to masks; needs only numpy and Pillow, so that scoring runs without torch."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from components.errors import DataError

MAX_PIXELS = 50_000_000  # a decoded image beyond this is refused before it is decompressed


@dataclass(frozen=True)
class Decoding:
    """How the picture files of a data set become 8-bit RGB; carried from the manifest to the bundle and the service.

    *white* is the value of files with more than 8 bits that becomes 255, None where none has; larger pictures than
    *max_pixels* are never decompressed.
    """

    white: float | None = None
    max_pixels: int = MAX_PIXELS


DEFAULT = Decoding()


def decode(source: Path | bytes, name: str | None = None, rules: Decoding = DEFAULT) -> np.ndarray:
    """Decode an image file to RGB: uint8, (H, W, 3), EXIF rotation applied, alpha dropped, 16 bit scaled to 8.

    *name* is used in messages. Raises DataError when the bytes are no complete image or the image is too large.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(stream) as image:
            if image.width * image.height > rules.max_pixels:
                raise DataError(
                    f"{name}: {image.width} x {image.height} are more pixels than the limit of {rules.max_pixels}; "
                    "reduce the image or raise max_pixels"
                )
            return _rgb(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{name}: is not an image Pillow can read; remove it or export it again") from None
    except Image.DecompressionBombError:  # Pillow's own limit is met when the header is read
        raise DataError(
            f"{name}: has more pixels than the limit of {rules.max_pixels}; reduce the image or raise max_pixels"
        ) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{name}: cannot be decoded ({error}); export it again") from error


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith(("I", "F")):  # 16-bit and 32-bit grey: the top eight of sixteen bits
        grey = np.asarray(image, dtype=np.float64)
        return np.repeat(np.clip(grey / 257.0, 0, 255).round().astype(np.uint8)[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def load_mask(path: Path, size: int) -> np.ndarray:
    """A mask file as bool (size, size), by nearest neighbour; brighter than half of the brightest is anomalous."""
    with Image.open(path) as image:
        small = image.convert("L").resize((size, size), Image.Resampling.NEAREST)
    grey = np.asarray(small)
    return grey > grey.max() / 2
