"""Images on disk as the tables detectors learn from."""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from components.backbones.extractor import Backbone
from components.backbones.features import Features, FeatureStore, ImageSource
from components.core.artefacts import values_hash
from components.core.errors import DataError, SettingsError
from components.core.progress import progress
from components.detectors.contract import Chosen, Labelled, Table
from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.framing import inside, nearest, scaled
from components.pictures.imaging import resize, seen_at, to_tensor
from components.pictures.kept import decode
from components.pictures.masks import Mask
from components.pictures.tiles import Box, boxes
from components.synthesis.blending import Synthetic, unchanged
from components.synthesis.extended import extended
from components.synthesis.placing import cut, on_picture
from components.synthesis.settings import SynthesisSettings
from components.synthesis.sources import texture
from components.synthesis.strategies import require_learnable
from components.synthesis.synthesise import identity, make
from components.training.moves import MovedImages, MovedTable, posed


class Piece(NamedTuple):
    """What a detector sees at a time: a square of the picture of that number, None: the whole of it."""

    picture: int
    box: Box | None


@dataclass(frozen=True)
class FileImages:
    """Image files in a fixed order, piece by piece where the rules cut them; *hashes* are those of their bytes and
    make, with the rules, the content's identity."""

    paths: tuple[Path, ...]
    hashes: tuple[str, ...]
    rules: Decoding = DEFAULT

    @cached_property
    def pieces(self) -> list[Piece]:
        """Its rows."""
        return [Piece(number, box) for number in range(len(self.paths)) for box in self._boxes(number)]

    def _boxes(self, number: int) -> list[Box] | list[None]:
        if not self.rules.tiles:
            return [None]
        height, width = self._picture(number).shape[:2]
        found = boxes(height, width, self.rules.tiles, self.rules.roi)
        return [None] if found == [Box((0, height), (0, width))] else found

    @property
    def key(self) -> str:
        # Of whole pictures without a white and a region it is as it always was: features in the store stay.
        known, cut = self.rules.content, [piece for piece in self.pieces if piece.box]
        if cut:
            return values_hash([self.hashes, *known, self.pieces])
        return values_hash(self.hashes if known == [None] else [self.hashes, *known])

    @property
    def identities(self) -> list[str]:
        """The identity of each row by itself."""
        known = self.rules.content
        return [values_hash([self.hashes[p.picture], *known, *(p.box or ())])[:16] for p in self.pieces]

    def __len__(self) -> int:
        return len(self.pieces)

    def pixels(self, indices: Sequence[int], size: int) -> Tensor:
        """(len(indices), 3, size, size) float32 in [0, 1]."""
        return torch.cat([seen_at([self._shown(self.pieces[i])], (size,))[0] for i in indices])

    def counted(self, number: int, size: int) -> np.ndarray | None:
        """Bool (size, size): where the region of interest lies in a row; None without one."""
        piece, roi = self.pieces[number], self.rules.roi
        if roi is None or piece.box is None:
            return scaled(roi, size, size) if roi else None
        within = piece.box.of(inside(roi, *self._picture(piece.picture).shape[:2]))
        return nearest(within, size, size)

    def _shown(self, piece: Piece) -> np.ndarray:
        pixels = self._picture(piece.picture)
        return pixels if piece.box is None else piece.box.of(pixels)

    def _picture(self, number: int) -> np.ndarray:
        """Decoded; the last one is kept, as its pieces are asked for one after the other."""
        if number not in self._held:
            self._held.clear()
            self._held[number] = decode(self.paths[number], rules=self.rules)
        return self._held[number]

    @cached_property
    def _held(self) -> dict[int, np.ndarray]:
        return {}


def by_picture(images: ImageSource, scores: np.ndarray) -> np.ndarray:
    """*scores* of the rows of *images* as those of its pictures: each that of its most anomalous piece."""
    if not isinstance(images, FileImages) or len(images) == len(images.paths):
        return scores
    starts = np.flatnonzero(np.diff([-1, *(piece.picture for piece in images.pieces)]))
    return np.asarray(np.maximum.reduceat(scores, starts))


class Defects:
    """Labelled anomalies in memory at one size, the material of ``components.synthesis.extended``."""

    def __init__(self, images: FileImages, masks: Sequence[Mask], size: int) -> None:
        self.key = values_hash([images.key, [mask.key for mask in masks]])
        drawn = [masks[p.picture].load(size, p.box) for p in images.pieces]
        marked = [row for row, p in enumerate(images.pieces) if p.box is None or drawn[row].any()]
        pixels = images.pixels(marked, size)
        self.labelled = Labelled(pixels, torch.stack([torch.from_numpy(drawn[row])[None] for row in marked]))

    def extended(self, normal: np.ndarray, rng: np.random.Generator, settings: SynthesisSettings) -> Synthetic:
        """A varied copy of one of them, drawn evenly, on *normal*: uint8 (H, W, 3)."""
        drawn = int(rng.integers(len(self.labelled.pixels)))
        defect, mask = _bytes(self.labelled.pixels[drawn]), self.labelled.masks[drawn, 0].numpy()
        return extended(normal, defect, mask, rng, settings)


@dataclass(frozen=True, eq=False)
class MadeImages:
    """Synthetic anomalies on *rows* of *images*: uint8 (N, size, size, 3), and masks, bool (N, size, size)."""

    key: str  # what determines them
    images: ImageSource
    rows: tuple[int, ...]  # N
    drawn: np.ndarray
    marked: np.ndarray

    def __len__(self) -> int:
        return len(self.drawn)

    def pixels(self, indices: Sequence[int], size: int) -> Tensor:
        """(len(indices), 3, size, size): each image as it is at that size, and what its anomaly changes, resized."""
        return torch.stack([self._changed(i, size) for i in indices])

    def _changed(self, number: int, size: int) -> Tensor:
        origin, side = self.rows[number], self.drawn.shape[1]
        clean = self.images.pixels([origin], size)[0]
        before = clean if size == side else self.images.pixels([origin], side)[0]
        # Nowhere else does the image differ from the normal one, not even by the rounding that it was drawn with.
        change = to_tensor(self.drawn[number]) - to_tensor(_bytes(before))
        return (clean + resize(change[None], size)[0]).clamp(0, 1)

    def masks(self, indices: Sequence[int], side: int) -> Tensor:
        """(len(indices), 1, side, side) float32: the largest value within each cell."""
        return F.adaptive_max_pool2d(torch.from_numpy(self.marked[list(indices)]).float()[:, None], side)


def draw_anomalies(
    images: ImageSource,
    settings: SynthesisSettings,
    seed: int,
    copies: int = 1,
    defects: Defects | None = None,
) -> MadeImages:
    """*copies* synthetic anomalies on each picture of *images*, in memory: number i is a function of (seed, i).

    Of a picture in several poses each is made on one that is drawn.

    They lie inside the region of interest of *images*. Raises SettingsError, DataError.
    """
    require_learnable(settings.strategies)
    key = values_hash([identity(), images.key, settings, seed, copies, *([defects.key] if defects else [])])
    rows = origins(images, copies, seed)
    shape = (len(rows), settings.size, settings.size)
    pixels, masks = np.empty((*shape, 3), np.uint8), np.empty(shape, bool)
    counted = getattr(images, "counted", lambda number, size: None)  # noqa: ARG005
    for i in progress(range(shape[0]), "synthetic anomalies to learn from"):
        normal = _bytes(images.pixels([rows[i]], settings.size)[0])
        try:
            made = _drawn(i, normal, _generator(seed, i), settings, defects, counted(rows[i], settings.size))
        except DataError:  # too little of the region lies in a square: it stays as it is
            if not (isinstance(images, FileImages) and images.pieces[rows[i]].box):
                raise
            made = unchanged(normal, 0.0)
        pixels[i], masks[i] = made.image, made.mask
    return MadeImages(key, images, rows, pixels, masks)


def origins(images: ImageSource, copies: int, seed: int) -> tuple[int, ...]:
    """The row of *images* that each anomaly is made on."""
    poses = getattr(images, "poses", 1)
    count = len(images) // poses
    drawn = _generator(seed, count, "pose").integers(poses, size=copies * count)
    return tuple(int(pose) * count + i // copies for i, pose in enumerate(drawn))


def _drawn(
    number: int,
    normal: np.ndarray,
    rng: np.random.Generator,
    settings: SynthesisSettings,
    defects: Defects | None,
    counts: np.ndarray | None,
) -> Synthetic:
    """The anomaly of a number, where *counts*, bool (H, W), says if it is given: the strategies take turns."""
    strategy = settings.strategies[number % len(settings.strategies)]
    if strategy != "extended":
        if counts is None:
            return make(strategy, normal, rng, settings)
        return on_picture(normal, lambda square: make(strategy, square, rng, settings), settings.size, rng, counts)
    if defects is None:
        raise SettingsError("strategy extended needs labelled anomalies; set split.labelled")
    if counts is None:
        return defects.extended(normal, rng, settings)
    return cut(normal, lambda: defects.extended(normal, rng, settings), counts)


def _bytes(image: Tensor) -> np.ndarray:
    """(3, H, W) in [0, 1] -> (H, W, 3) uint8."""
    return (image * 255).round().byte().permute(1, 2, 0).numpy()


def _generator(seed: int, number: int, purpose: str = "learn") -> np.random.Generator:
    digest = hashlib.sha256(f"{seed}/{purpose}/{number}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "big"))


class NaturalImages:
    """Crops of the packaged photographs and textures, or of a folder such as DTD: ``components.synthesis.sources``."""

    def __init__(self, settings: SynthesisSettings, seed: int, count: int) -> None:
        self.key = values_hash(["natural", identity(), settings.textures, seed, count])
        self.folder = Path(settings.textures) if settings.textures else None
        self.seed, self.count = seed, count

    def __len__(self) -> int:
        return self.count

    def pixels(self, indices: Sequence[int], size: int) -> Tensor:
        drawn = [texture(size, self.folder, _generator(self.seed, i, "natural")) for i in indices]
        return torch.stack([to_tensor(image) for image in drawn])


class PixelTable:
    """Images resized once and kept in memory as uint8, 0.2 MB each at 256 pixels."""

    def __init__(self, images: ImageSource, size: int) -> None:
        self._pixels = torch.empty((len(images), 3, size, size), dtype=torch.uint8)
        for i in range(len(images)):
            self._pixels[i] = (images.pixels([i], size)[0] * 255).round().byte()

    def __len__(self) -> int:
        return len(self._pixels)

    def take(self, indices: Sequence[int]) -> Tensor:
        return self._pixels[torch.as_tensor(indices)].float() / 255


def pixel_table(images: ImageSource, size: int) -> Table:
    """*images* in memory, moved ones as their pictures, which are moved at every draw."""
    if isinstance(images, MovedImages):
        return MovedTable(pixel_table(images.images, size), images)
    return PixelTable(images, size)


@dataclass(frozen=True)
class MaskTable:
    """The masks of made images, pooled to *side*."""

    images: MadeImages
    side: int

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: Sequence[int]) -> Tensor:
        return self.images.masks(indices, self.side)


@dataclass(frozen=True)
class StoredImages:
    """Images with their features from the store: ``detectors.contract.Images``."""

    images: ImageSource
    store: FeatureStore

    def features(self, backbone: Backbone) -> Features:
        return posed(self.store.features(backbone, self.images), self.images)

    def pixels(self, size: int) -> Table:
        return pixel_table(self.images, size)

    def clips(self, size: int, frames: int) -> Table:
        from components.training.clips import clip_table  # which is made of what is here

        return clip_table(self.images, size, frames)


@dataclass(frozen=True)
class MadeAnomalies(StoredImages):
    """Synthetic anomalies with their masks: ``detectors.contract.Anomalies``."""

    images: MadeImages

    def clean(self, size: int) -> Chosen:
        return Chosen(pixel_table(self.images.images, size), self.images.rows)

    def before(self, backbone: Backbone) -> Chosen:
        return Chosen(self.store.features(backbone, self.images.images), self.images.rows)

    def masks(self, side: int) -> MaskTable:
        return MaskTable(self.images, side)


@dataclass(frozen=True)
class FitImages(StoredImages):
    """The fit normals, and labelled anomalies if there are: ``detectors.contract.TrainingData``."""

    seed: int = 0
    synthesis: SynthesisSettings = SynthesisSettings()
    spent: dict[str, float] = field(default_factory=dict, compare=False)  # seconds by what they went to
    anomalous: FileImages | None = None  # labelled anomalies
    masks: tuple[Mask, ...] = ()  # theirs

    def anomalies(self, strategies: tuple[str, ...], size: int, copies: int = 1) -> MadeAnomalies:
        settings = replace(self.synthesis, strategies=strategies, size=size)
        defects = self._defects(size) if "extended" in strategies else None
        started = time.perf_counter()
        made = draw_anomalies(self.images, settings, self.seed, copies, defects)
        self.spent["synthesis"] = self.spent.get("synthesis", 0.0) + time.perf_counter() - started
        return MadeAnomalies(made, self.store)

    def natural(self, size: int, count: int) -> PixelTable:
        return PixelTable(NaturalImages(self.synthesis, self.seed, count), size)

    def labelled(self, size: int) -> Labelled | None:
        defects = self._defects(size)
        return defects.labelled if defects else None

    def _defects(self, size: int) -> Defects | None:
        return Defects(self.anomalous, self.masks, size) if self.anomalous is not None else None


@dataclass(frozen=True)
class CheckImages:
    """What epochs are chosen by: calibrate normals and synthetic anomalies. Test images never come here."""

    data: StoredImages
    anomalous: np.ndarray  # (N,) bool
