"""Frozen features computed once per (images, backbone, tap, size), memory-mapped as float16, shared by all.

An entry is a folder of one tap, written aside and renamed, with the hash of its bytes. Detectors that read different
taps of the same backbone share what they have in common. Two processes that want the same features wait for each other
on a file lock; the second finds them ready. The least recently used entries go when the store outgrows its limit.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import torch
from torch import Tensor

from components.backbones.batches import IN_GRAPH, at_once
from components.backbones.extractor import Backbone
from components.backbones.runtime import FastBackbone
from components.core.artefacts import atomic_dir, file_hash, locked, read_json, values_hash, write_json
from components.core.cache import size_of
from components.core.errors import PlaceError
from components.core.places import writing
from components.core.progress import progress
from components.core.system import reserve

log = logging.getLogger("loupe")
BLOCK = 2**20  # bytes
TRIES = 5
Extract = Callable[[Tensor], Sequence[np.ndarray]]
Extracted = tuple[Sequence[int], Sequence[np.ndarray]]


class ImageSource(Protocol):
    """A fixed sequence of images; ``key`` identifies their content."""

    @property
    def key(self) -> str: ...

    def __len__(self) -> int: ...

    def pixels(self, indices: Sequence[int], size: int) -> Tensor:
        """(len(indices), 3, size, size) float32 in [0, 1]."""
        ...


class Features(Protocol):
    """The features of a fixed sequence of images, drawn by index."""

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int]) -> list[Tensor]:
        """The features of some images, float32 (B, C, h, w) per tap."""
        ...


@dataclass(frozen=True)
class FeatureTable:
    """One array per tap, (N, C, h, w) float16, read from disk as needed."""

    taps: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.taps[0])

    def take(self, indices: Sequence[int]) -> list[Tensor]:
        return [torch.from_numpy(tap[indices].astype(np.float32)) for tap in self.taps]


@dataclass(frozen=True)
class LiveFeatures:
    """Features computed at every draw, where the store is off."""

    backbone: Backbone
    images: ImageSource

    def __len__(self) -> int:
        return len(self.images)

    @torch.inference_mode()
    def _extract(self, indices: Sequence[int]) -> list[Tensor]:
        device = next(self.backbone.parameters()).device
        return self.backbone(self.images.pixels(indices, self.backbone.settings.size).to(device))

    def take(self, indices: Sequence[int]) -> list[Tensor]:
        # Rounded as the store rounds, so that both ways learn from the same numbers.
        return [tap.cpu().half().float().clone() for tap in self._extract(indices)]


@dataclass
class Usage:
    """What a run asked of the store: taps found and computed, seconds spent and saved."""

    hits: int = 0
    misses: int = 0
    copied: int = 0  # pictures whose features other entries had
    computed: int = 0  # pictures that went through the backbone
    seconds_spent: float = 0.0
    seconds_saved: float = 0.0
    unusable: str | None = None  # why features were computed without the store


@dataclass(frozen=True)
class FeatureStore:
    """A folder of features (None: the store is off); *limit_gb* bounds its size on disk."""

    root: Path | None
    limit_gb: float = 20.0
    usage: Usage = field(default_factory=Usage, compare=False)

    def features(self, backbone: Backbone, images: ImageSource) -> Features:
        """The features of *images*, computed and written if the store lacks them.

        Where the store cannot be written they are computed at every draw, and one warning says so.
        """
        if self.root is None or self.usage.unusable:
            return LiveFeatures(backbone, images)
        try:
            with writing(self.root):
                return self._stored(self.root, backbone, images)
        except PlaceError as error:
            self.usage.unusable = str(error)
            log.warning("features are computed without the store, which takes longer (train.store): %s", error)
            return LiveFeatures(backbone, images)

    def _stored(self, root: Path, backbone: Backbone, images: ImageSource) -> FeatureTable:
        entries = [root / values_hash([key, images.key])[:24] for key in backbone.tap_keys()]
        with locked(root / f"{values_hash([backbone.base_key(), images.key])[:24]}.lock"):
            for _ in range(
                TRIES
            ):  # an entry may go between the look and the reading: `loupe cache --clear`, a full store
                missing = [i for i, entry in enumerate(entries) if not self._found(entry)]
                if missing:
                    self._evict({entry.name for entry in entries})
                    self._compute(backbone, images, {i: entries[i] for i in missing})
                with suppress(FileNotFoundError):
                    return FeatureTable(tuple(np.load(entry / "tap.npy", mmap_mode="r") for entry in entries))
        raise PlaceError(f"{root}: other processes empty it all the time; give another folder as train.store")

    def _found(self, entry: Path) -> bool:
        try:
            if _complete(entry):
                seconds = read_json(entry / "manifest.json")["seconds"]
                os.utime(entry)  # used just now: the last to be evicted
                self.usage.hits += 1
                self.usage.seconds_saved += seconds
                return True
        except FileNotFoundError:  # it went while it was looked at
            pass
        self.usage.misses += 1
        return False

    def _compute(self, backbone: Backbone, images: ImageSource, entries: dict[int, Path]) -> None:
        started = time.perf_counter()
        with ExitStack() as stack:
            folders = {i: stack.enter_context(atomic_dir(entry)) for i, entry in entries.items()}
            root, keys = next(iter(entries.values())).parent, backbone.tap_keys()
            taps, pictures = {i: values_hash(keys[i]) for i in entries}, _pictures(images)
            found = known_rows(root, taps, pictures)
            rest = [row for row in range(len(images)) if row not in found]
            arrays = {i: _reserved(folders[i] / "tap.npy", _shape(backbone, i, len(images))) for i in folders}
            _copy(arrays, found)
            if rest:
                self._fill(arrays, backbone, images, rest)
            for array in arrays.values():
                array.flush()
            self.usage.copied, self.usage.computed = self.usage.copied + len(found), self.usage.computed + len(rest)
            # Each tap carries its share of the time, so that a hit counts what it saved.
            seconds = round((time.perf_counter() - started) / len(backbone.channels), 3)
            for i, folder in folders.items():
                about = {"sha256": file_hash(folder / "tap.npy"), "seconds": seconds}
                write_json(folder / "manifest.json", {**about, "tap": taps[i], "pictures": pictures})
        self.usage.seconds_spent += time.perf_counter() - started

    def _fill(
        self, arrays: dict[int, np.memmap], backbone: Backbone, images: ImageSource, numbers: Sequence[int]
    ) -> None:
        label, count = f"features of {len(numbers)} images", -(-len(numbers) // batch_of(backbone))
        for rows, found in progress(self.extract(backbone, images, numbers), label, count):
            for i, array in arrays.items():
                array[rows] = found[i]

    def extract(self, backbone: Backbone, images: ImageSource, rows: Sequence[int]) -> Iterator[Extracted]:
        """*rows* of *images* and their features, one array (B, C, h, w) per tap, batch by batch."""
        assert self.root is not None
        compute, batch = extractor(backbone, self.root), batch_of(backbone)
        for start in range(0, len(rows), batch):
            part = rows[start : start + batch]
            yield part, compute(images.pixels(part, backbone.settings.size))

    def _evict(self, wanted: set[str]) -> None:
        assert self.root is not None
        entries = sorted((p for p in self.root.iterdir() if (p / "manifest.json").exists()), key=_used_at)
        sizes = {entry: size_of(entry) for entry in entries}
        for entry in entries:
            if sum(sizes.values()) <= self.limit_gb * 1e9:
                return
            if entry.name not in wanted:
                shutil.rmtree(entry, ignore_errors=True)  # who has it mapped keeps reading it
                del sizes[entry]


def batch_of(backbone: Backbone) -> int:
    """How many pictures the graph of *backbone* sees at once."""
    return at_once(backbone.settings.size, IN_GRAPH)


def _pictures(images: ImageSource) -> list[str] | None:
    """The identity of each row by itself, where *images* are files; None for pictures made in memory."""
    return getattr(images, "identities", None)


Place = dict[int, tuple[Path, int]]  # by tap: the entry, and the row in it


def known_rows(root: Path, taps: dict[int, str], pictures: list[str] | None) -> dict[int, Place]:
    """By number of picture: where other entries have the features of all *taps*. A new picture costs itself alone."""
    places: dict[int, dict[str, tuple[Path, int]]] = {i: {} for i in taps}
    wanted = set(pictures or ())
    for entry in root.iterdir() if wanted else ():
        with suppress(FileNotFoundError):  # another process empties the store
            about = read_json(entry / "manifest.json") if (entry / "manifest.json").exists() else {}
            here = [i for i, tap in taps.items() if about.get("tap") == tap]
            if here and wanted & set(about["pictures"] or ()) and _complete(entry):
                for row, picture in enumerate(about["pictures"]):
                    places[here[0]].setdefault(picture, (entry, row))
    found = {}
    for number, picture in enumerate(pictures or ()):
        if all(picture in known for known in places.values()):
            found[number] = {i: known[picture] for i, known in places.items()}
    return found


def _copy(arrays: dict[int, np.memmap], found: dict[int, Place]) -> None:
    opened: dict[Path, np.ndarray] = {}
    for number, place in found.items():
        for i, (entry, row) in place.items():
            if entry not in opened:
                opened[entry] = np.load(entry / "tap.npy", mmap_mode="r")
            arrays[i][number] = opened[entry][row]


def _shape(backbone: Backbone, tap: int, count: int) -> tuple[int, ...]:
    return (count, backbone.channels[tap], backbone.grids[tap], backbone.grids[tap])


def _reserved(path: Path, shape: tuple[int, ...]) -> np.memmap:
    """A new float16 array on disk whose space is taken: a full disk is an error here, and not a bus error later."""
    array = np.lib.format.open_memmap(path, "w+", np.float16, shape)
    with path.open("r+b") as stream:
        if not reserve(stream.fileno(), path.stat().st_size):
            _fill_with_zeros(stream, array.nbytes)
    return array


def _fill_with_zeros(stream: BinaryIO, count: int) -> None:
    """Write *count* zeros up to the end of a file, where the file system cannot reserve space."""
    stream.seek(-count, os.SEEK_END)
    for start in range(0, count, BLOCK):
        stream.write(bytes(min(BLOCK, count - start)))


def _used_at(entry: Path) -> float:
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:  # another process has removed it
        return 0.0


def _complete(entry: Path) -> bool:
    """True when the entry is whole; one whose bytes changed on disk is removed."""
    if not (entry / "manifest.json").exists():
        return False
    if file_hash(entry / "tap.npy") == read_json(entry / "manifest.json")["sha256"]:
        return True
    log.warning("%s: features do not match their hash and are computed again", entry)
    shutil.rmtree(entry, ignore_errors=True)
    return False


def extractor(backbone: Backbone, cache: Path) -> Extract:
    """What computes features: the backbone's graph, kept in *cache*, or torch where there is a GPU."""
    if not torch.cuda.is_available():
        return FastBackbone(backbone, cache)

    @torch.inference_mode()
    def on_gpu(pixels: Tensor) -> list[np.ndarray]:
        device = next(backbone.parameters()).device
        return [tap.cpu().numpy() for tap in backbone(pixels.to(device))]

    backbone.cuda()
    return on_gpu
