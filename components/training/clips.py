"""Clips on disk as the tables that detectors of clips learn from."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from components.backbones.features import ImageSource
from components.core.errors import DataError, SettingsError
from components.detectors.contract import Table
from components.pictures.clips import past
from components.pictures.imaging import seen_at
from components.pictures.kept import decode
from components.training.data import FileImages
from components.training.moves import MovedImages, MovedTable


class _Frame(NamedTuple):
    number: int
    shape: tuple[int, ...]


class ClipTable:
    """Windows of *frames* frames that end with each of *images*, as ``clips.window`` has them.

    Each frame is decoded and resized once and kept in memory as uint8, 0.05 MB at 128 pixels, however many windows hold
    it.
    """

    def __init__(self, images: FileImages, size: int, frames: int) -> None:
        self._pixels: list[Tensor] = []
        self._images, self._size = images, size
        self._known: dict[Path, _Frame | None] = {}
        stride = images.rules.stride
        rows = [list(self._row(path, past(path, frames - 1, stride))) for path in images.paths]
        self._rows, self._frames = torch.tensor(rows), torch.stack(self._pixels)
        self._pixels.clear()
        self._known.clear()

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: Sequence[int]) -> Tensor:
        """(len(indices), frames, 3, size, size) float32 in [0, 1]."""
        return self._frames[self._rows[torch.as_tensor(indices)]].float() / 255

    def _row(self, target: Path, before: Sequence[Path]) -> Iterator[int]:
        """The numbers of the frames of one window, oldest first. Raises DataError for a target that is none."""
        found = self._read(target)
        if found is None:
            decode(target, rules=self._images.rules.single)  # tells why
            raise DataError(f"{target}: cannot be read; copy it again")
        numbers = [found]
        for path in reversed(before):
            other = self._read(path)
            numbers.append(other if other and other.shape == found.shape else numbers[-1])
        return (frame.number for frame in reversed(numbers))

    def _read(self, path: Path) -> _Frame | None:
        if path not in self._known:
            self._known[path] = self._decoded(path)
        return self._known[path]

    def _decoded(self, path: Path) -> _Frame | None:
        try:
            pixels = decode(path, rules=self._images.rules.single)
        except DataError:
            return None
        self._pixels.append((seen_at([pixels], (self._size,))[0][0] * 255).round().byte())
        return _Frame(len(self._pixels) - 1, pixels.shape)


def clip_table(images: ImageSource, size: int, frames: int) -> Table:
    """Clips that end with each of *images*, moved ones as their clips, all frames of which are moved alike."""
    if isinstance(images, MovedImages):
        return MovedTable(clip_table(images.images, size, frames), images)
    if not isinstance(images, FileImages):
        raise SettingsError("clips are made of files; a detector of clips learns from none that are drawn")
    return ClipTable(images, size, frames)
