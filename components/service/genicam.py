"""A GenICam camera, opened as ``streams`` opens a video; the one module that knows harvesters.

Its place is ``genicam:///opt/vendor/producer.cti?serial=H2420737``: the vendor's GenTL producer, and which camera where
there are several. What the camera is set to, exposure, trigger, size, stays as the vendor's program has left it.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import numpy as np

from components.core.errors import SettingsError

SCHEME = "genicam://"
PATIENCE = 10.0  # seconds for one picture; then the camera is opened again
CHANNELS = {"Mono8": 1, "RGB8": 3, "BGR8": 3}


class Grabbed(NamedTuple):
    """One picture, uint8 (H, W, 3), with the face of a decoded frame."""

    pixels: np.ndarray
    time: float = 0.0

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])

    def to_ndarray(self, format: str = "rgb24") -> np.ndarray:  # noqa: ARG002  (PyAV's name)
        """The pixels, which are RGB always."""
        return self.pixels


class Device:
    """An opened camera; it is given back at the end of the ``with``."""

    def __init__(self, harvester: Any, acquirer: Any) -> None:
        self.harvester, self.acquirer = harvester, acquirer

    def __enter__(self) -> "Device":
        self.acquirer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.acquirer.stop()
        self.acquirer.destroy()
        self.harvester.reset()

    def decode(self, video: int = 0) -> Iterator[Grabbed]:  # noqa: ARG002  (PyAV's name)
        """Pictures for ever. Raises ValueError for a pixel format that is none of CHANNELS."""
        while True:
            with self.acquirer.fetch(timeout=PATIENCE) as buffer:
                yield Grabbed(pixels_of(buffer.payload.components[0]))


def pixels_of(part: Any) -> np.ndarray:
    """A component of a buffer as RGB, uint8 (H, W, 3): a copy, since the buffer is used again."""
    name = str(part.data_format)
    if name not in CHANNELS:
        raise ValueError(f"the camera sends {name}; set its PixelFormat to one of {', '.join(CHANNELS)}")
    found = np.array(part.data, np.uint8).reshape(int(part.height), int(part.width), CHANNELS[name])
    return np.ascontiguousarray(found[..., ::-1] if name == "BGR8" else np.broadcast_to(found, (*found.shape[:2], 3)))


def opened(place: str) -> Device:
    """The camera at *place*. Raises SettingsError without harvesters or without a producer in *place*."""
    try:
        from harvesters.core import Harvester
    except ImportError:
        raise SettingsError("a GenICam camera needs the extra `genicam`: pip install 'loupe[genicam]'") from None
    address = urlsplit(place)
    if not address.path.endswith(".cti"):
        raise SettingsError(f"{place}: names no GenTL producer; write genicam:///path/producer.cti?serial=NUMBER")
    serial = parse_qs(address.query).get("serial", [""])[0]
    harvester = Harvester()
    harvester.add_file(address.path)
    harvester.update()
    return Device(harvester, harvester.create({"serial_number": serial} if serial else 0))
