"""Frozen features computed once per (images, backbone, taps, size), memory-mapped as float16, shared by all.

An entry is a directory of one ``.npy`` per tap, written aside and renamed, with a manifest of hashes. Two processes
that want the same entry wait for each other on a file lock; the second finds it ready. The oldest entries go when
the store outgrows its limit.
"""

import fcntl
import logging
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from components.artefacts import atomic_dir, file_hash, read_json, values_hash, write_json
from components.backbones.extractor import Backbone
from components.backbones.runtime import FastBackbone
from components.progress import progress

log = logging.getLogger("loupe")
BATCH = 16


class Images(Protocol):
    """A fixed sequence of images; ``key`` identifies their content."""

    @property
    def key(self) -> str: ...

    def __len__(self) -> int: ...

    def pixels(self, indices: Sequence[int], size: int) -> Tensor:
        """(len(indices), 3, size, size) float32 in [0, 1]."""
        ...


@dataclass(frozen=True)
class FeatureTable:
    """One array per tap, (N, C, h, w) float16, read from disk as needed."""

    taps: tuple[np.ndarray, ...]

    def __len__(self) -> int:
        return len(self.taps[0])

    def take(self, indices: Sequence[int]) -> list[Tensor]:
        """The features of some images, float32 (B, C, h, w) per tap."""
        return [torch.from_numpy(tap[indices].astype(np.float32)) for tap in self.taps]


@dataclass(frozen=True)
class FeatureStore:
    """A folder of feature tables; *limit_gb* bounds its size on disk."""

    root: Path
    limit_gb: float = 20.0

    def features(self, backbone: Backbone, images: Images) -> FeatureTable:
        """The features of *images*, computed and written if the store lacks them."""
        entry = self.root / values_hash([backbone.key(), images.key])[:24]
        with _locked(self.root / f"{entry.name}.lock"):
            if not _complete(entry):
                self._evict()
                self._compute(backbone, images, entry)
        return FeatureTable(tuple(np.load(entry / f"{i}.npy", mmap_mode="r") for i in range(len(backbone.channels))))

    def _compute(self, backbone: Backbone, images: Images, entry: Path) -> None:
        extract = _extractor(backbone, self.root)
        with atomic_dir(entry) as scratch:
            arrays = [
                np.lib.format.open_memmap(scratch / f"{i}.npy", "w+", np.float16, (len(images), c, g, g))
                for i, (c, g) in enumerate(zip(backbone.channels, backbone.grids, strict=True))
            ]
            for start in progress(range(0, len(images), BATCH), f"features of {len(images)} images"):
                rows = range(start, min(start + BATCH, len(images)))
                for array, values in zip(arrays, extract(images.pixels(rows, backbone.settings.size)), strict=True):
                    array[rows.start : rows.stop] = values
            for array in arrays:
                array.flush()
            write_json(scratch / "manifest.json", {p.name: file_hash(p) for p in sorted(scratch.glob("*.npy"))})

    def _evict(self) -> None:
        entries = sorted((p for p in self.root.iterdir() if p.is_dir()), key=lambda p: p.stat().st_mtime)
        sizes = {p: sum(f.stat().st_size for f in p.iterdir()) for p in entries if not p.name.startswith(".")}
        for entry in list(sizes)[: max(0, len(sizes) - 1)]:
            if sum(sizes.values()) <= self.limit_gb * 1e9:
                return
            shutil.rmtree(entry, ignore_errors=True)
            del sizes[entry]


def _complete(entry: Path) -> bool:
    """True when the entry is whole; one whose bytes changed on disk is removed."""
    if not (entry / "manifest.json").exists():
        return False
    if all(file_hash(entry / name) == digest for name, digest in read_json(entry / "manifest.json").items()):
        return True
    log.warning("%s: features do not match their hashes and are computed again", entry)
    shutil.rmtree(entry)
    return False


def _extractor(backbone: Backbone, cache: Path):  # type: ignore[no-untyped-def]
    if not torch.cuda.is_available():
        return FastBackbone(backbone, cache)

    @torch.inference_mode()
    def on_gpu(pixels: Tensor) -> list[np.ndarray]:
        device = next(backbone.parameters()).device
        return [tap.cpu().numpy() for tap in backbone(pixels.to(device))]

    backbone.cuda()
    return on_gpu


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
