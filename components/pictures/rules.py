"""How the pictures of a data set are decoded: what the manifest writes down and the bundle carries to the line.

A bundle carries a copy of this file for its runner: nothing of the project may be imported.
"""

from dataclasses import dataclass, replace
from typing import Any

MAX_PIXELS = 120_000_000  # a decoded image beyond this is refused before it is decompressed


@dataclass(frozen=True)
class Decoding:
    """How the picture files of a data set become 8-bit RGB; carried from the manifest to the bundle and the service.

    *white* is the value of files with more than 8 bits that becomes 255, None where none has; larger pictures than
    *max_pixels* are never decompressed. *roi* is the region of interest as ``framing`` reads it, None: everything.
    *tiles* is the number of squares across a picture's shorter side that a model sees, as ``tiles`` cuts them.

    *stride* says that the pictures of a folder are the frames of one clip in the order of their names, of which every
    stride-th is looked at; 0: pictures by themselves. *window* is how many frames a model sees together, the last of
    them the one that it scores; 0: one picture at a time.
    """

    white: float | None = None
    max_pixels: int = MAX_PIXELS
    roi: str | None = None
    tiles: int = 0
    stride: int = 0
    window: int = 0

    @property
    def content(self) -> list[Any]:
        """What of the rules determines pixels; without a region as it was before there were regions."""
        frames = [f"window {self.window} of every {self.stride}"] if self.window else []
        return [self.white, *([] if self.roi is None else [self.roi]), *frames]

    @property
    def identity(self) -> list[Any]:
        """What of the rules determines what a model sees; without tiles what it was before there were tiles."""
        return [*self.content, *(f"{key} {value}" for key in ("tiles", "stride") if (value := getattr(self, key)))]

    @property
    def whole(self) -> "Decoding":
        """The same rules without a region."""
        return replace(self, roi=None)

    @property
    def single(self) -> "Decoding":
        """The same rules for one frame."""
        return replace(self, window=0)

    @property
    def of_pictures(self) -> dict[str, Any]:
        """What of the rules a data set of pictures by themselves has as its settings."""
        return replace(self, stride=0, window=0).kept

    @property
    def kept(self) -> dict[str, Any]:
        """What files hold of the rules; older versions read those without a region, tiles or clips."""
        more = {key: value for key in ("roi", "tiles", "stride", "window") if (value := getattr(self, key))}
        return {"white": self.white, "max_pixels": self.max_pixels, **more}


DEFAULT = Decoding()
