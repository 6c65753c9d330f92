"""The moves of the square: pictures turned and mirrored, as rows of their own behind the pictures as they come.

Which moves leave a good picture as good as it was is measured (``training.pose``), never assumed. A moved picture has
an identity of its own in the feature store; pixels are moved when they are drawn and are never stored twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from components.backbones.features import ImageSource
from components.core.artefacts import values_hash
from components.detectors.contract import Table
from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.framing import scaled

Move = Callable[[Tensor], Tensor]  # (..., side, side) -> the same shape
# By the names of ``training.settings.MOVES``.
MOVES: dict[str, Move] = {
    "turn_90": lambda x: x.rot90(1, (-2, -1)),
    "turn_180": lambda x: x.rot90(2, (-2, -1)),
    "turn_270": lambda x: x.rot90(3, (-2, -1)),
    "left_right": lambda x: x.flip(-1),
    "top_bottom": lambda x: x.flip(-2),
    "diagonal": lambda x: x.transpose(-2, -1),
    "antidiagonal": lambda x: x.rot90(2, (-2, -1)).transpose(-2, -1),
}
# Extra rows at the most, or one a picture where that is more: many pictures show the poses by themselves, and a coreset
# of all moves of hundreds of pictures takes eight times as long.
ROWS = 1000
SIDE = 256  # of the grid on which a region of interest is compared with itself moved


def moved(pixels: Tensor, move: str | None) -> Tensor:
    """*pixels* (..., side, side) under a move; None leaves them as they are."""
    return pixels if move is None else MOVES[move](pixels)


def turns_of(count: int, moves: int) -> int:
    """How many extra rows each of *count* pictures gets where so many *moves* are taken: all, or fewer of many."""
    return min(moves, max(1, ROWS // count))


@dataclass(frozen=True)
class MovedImages:
    """*images* as they come and, behind all of them, *turns* times over again, each time under some of *moves*.

    Where there are fewer turns than moves, which move a picture gets in which turn is drawn, the same for every seed.
    Row ``turn * n + i`` is picture i of n; turn 0 is the picture itself.
    """

    images: ImageSource
    moves: tuple[str, ...]
    turns: int

    @property
    def key(self) -> str:
        return values_hash(["moves", self.images.key, self.moves, self.turns])

    @property
    def poses(self) -> int:
        """Rows of each picture."""
        return 1 + self.turns

    @property
    def rules(self) -> Decoding:
        return getattr(self.images, "rules", DEFAULT)

    @property
    def identities(self) -> list[str] | None:
        """Of the content of each row, those of the pictures as they come unchanged: the store has these already."""
        known = getattr(self.images, "identities", None)
        if known is None:
            return None
        return [known[i] if move is None else f"{known[i]} {move}" for i, move in map(self.at, range(len(self)))]

    def counted(self, row: int, size: int) -> np.ndarray | None:
        """Where the region of interest lies in a row: moves are those that leave it as it is."""
        counted = getattr(self.images, "counted", None)
        found: np.ndarray | None = counted(self.at(row)[0], size) if counted else None
        return found

    def __len__(self) -> int:
        return self.poses * len(self.images)

    def at(self, row: int) -> tuple[int, str | None]:
        """Which picture a row is of, and under which move."""
        turn, picture = divmod(row, len(self.images))
        return picture, None if turn == 0 else self.moves[self._order[picture, turn - 1]]

    def pixels(self, indices: Sequence[int], size: int) -> Tensor:
        """(len(indices), 3, size, size) float32 in [0, 1]: the square that the picture was resized to, moved."""
        found = self.images.pixels([self.at(i)[0] for i in indices], size)
        return torch.stack([moved(x, self.at(i)[1]) for x, i in zip(found, indices, strict=True)])

    @cached_property
    def _order(self) -> np.ndarray:
        """(n, moves): the moves of each picture in the order of its turns."""
        order = np.tile(np.arange(len(self.moves)), (len(self.images), 1))
        return order if self.turns == len(self.moves) else np.random.default_rng(0).permuted(order, axis=1)


@dataclass(frozen=True)
class MovedTable:
    """Pixels of ``MovedImages`` from a *table* of the pictures as they come."""

    table: Table
    images: MovedImages

    @property
    def poses(self) -> int:
        return self.images.poses

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Sequence[int]) -> Tensor:
        """(len(indices), 3, size, size)."""
        found = self.table.take([self.images.at(i)[0] for i in indices])
        return torch.stack([moved(x, self.images.at(i)[1]) for x, i in zip(found, indices, strict=True)])


@dataclass(frozen=True)
class Posed:
    """A *table* that holds all *poses* of its pictures one behind the other."""

    table: Table
    poses: int

    def __len__(self) -> int:
        return len(self.table)

    def take(self, indices: Sequence[int]) -> Any:
        return self.table.take(indices)


def posed(table: Table, images: ImageSource) -> Table:
    """*table* of *images*, which says how many poses it holds where they are several."""
    return Posed(table, images.poses) if isinstance(images, MovedImages) else table


def allowed(rules: Decoding, names: Sequence[str] = tuple(MOVES)) -> tuple[str, ...]:
    """Those of *names* under which the region of interest of *rules*, if there is one, covers itself.

    Of a picture in squares each has its own part of the region: none of them is moved.
    """
    if rules.roi is None:
        return tuple(names)
    if rules.tiles:
        return ()
    region = torch.from_numpy(scaled(rules.roi, SIDE, SIDE).copy())
    return tuple(name for name in names if torch.equal(moved(region, name), region))
