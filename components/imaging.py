"""The one path from file bytes to the tensor that ``Detector.forward`` takes.

Decoding happens here, resizing and normalising in the detector's graph (docs/adr/0003-pixels.md). ``resize`` is the
same operation in both places, so pixels that were resized once pass a detector's own resize unchanged.
"""

import io
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from components.errors import DataError

MAX_PIXELS = 50_000_000  # a decoded image beyond this is refused before it is decompressed


def decode(source: Path | bytes, name: str | None = None, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode an image file to RGB: uint8, (H, W, 3), EXIF rotation applied, alpha dropped, 16 bit scaled to 8.

    *name* is used in messages. Raises DataError when the bytes are no complete image or the image is too large.
    """
    name = name or (str(source) if isinstance(source, Path) else "image")
    stream = io.BytesIO(source) if isinstance(source, bytes) else source
    try:
        with Image.open(stream) as image:
            if image.width * image.height > max_pixels:
                raise DataError(
                    f"{name}: {image.width} x {image.height} pixels are more than the limit of {max_pixels}; "
                    "reduce the image or raise max_pixels"
                )
            return _rgb(ImageOps.exif_transpose(image))
    except DataError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"{name}: is not an image Pillow can read; remove it or export it again") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot be decoded ({error}); export it again") from error


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith(("I", "F")):  # 16-bit and 32-bit grey: the top eight of sixteen bits
        grey = np.asarray(image, dtype=np.float64)
        return np.repeat(np.clip(grey / 257.0, 0, 255).round().astype(np.uint8)[..., None], 3, axis=2)
    return np.array(image.convert("RGB"))


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float().div_(255)


def resize(images: Tensor, size: int) -> Tensor:
    """(B, 3, H, W) -> (B, 3, size, size): bilinear, anti-aliased when scaling down, half-pixel centres."""
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def load(path: Path, size: int) -> Tensor:
    """Decode and resize one file to (3, size, size) float32 in [0, 1]."""
    return resize(to_tensor(decode(path))[None], size)[0]


def load_mask(path: Path, size: int) -> np.ndarray:
    """A mask file as bool (size, size), by nearest neighbour; any non-zero pixel is anomalous."""
    with Image.open(path) as image:
        small = image.convert("L").resize((size, size), Image.Resampling.NEAREST)
    return np.asarray(small) > 127
