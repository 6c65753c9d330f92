"""Image files through an exported graph as the line scores them: what calibrates and is measured is what ships.

A traced graph lies in a folder of its own before its operating point is known (``export.trace``), and in the bundle
afterwards.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from components.core.artefacts import read_json, tree_hash, write_json
from components.core.errors import BundleError
from components.core.progress import progress
from components.core.runtime import Room, cores, session, side_by_side
from components.core.settings import build
from components.decision.bundle import Bundle, run_of
from components.decision.seeing import AT_ONCE, abreast, seen
from components.pictures.decoding import Decoding, extent
from components.pictures.framing import quiet, values_inside
from components.pictures.heat import squeezed
from components.pictures.kept import decode

GRAPH, FILE = "model.onnx", "graph.json"


@dataclass(frozen=True)
class Traced:
    """The graph of the trained model with the hash *model*, how it sees pictures, and how many at once."""

    session: Any
    model: str
    decoding: Decoding
    most: int

    @classmethod
    def open(cls, folder: Path, model: Path) -> "Traced":
        """That of a folder that ``export.trace`` wrote, or of a bundle. Raises BundleError where it is not of *model*.

        A bundle is opened only where its files are those that its manifest names.
        """
        found = cls._stated(folder) if (folder / FILE).exists() else cls._shipped(folder)
        if found.model != tree_hash(model / "model.safetensors"):
            raise BundleError(f"{folder}: its graph is of another model than {model}; export it again")
        return found

    @classmethod
    def _stated(cls, folder: Path) -> "Traced":
        known = read_json(folder / FILE)
        rules = build(Decoding, known["decoding"], f"{folder / FILE}: decoding")
        return cls(session(folder / GRAPH, 1), known["model"], rules, cores())

    @classmethod
    def _shipped(cls, folder: Path) -> "Traced":
        bundle = Bundle.open(folder, 1)
        return cls(bundle.session, bundle.manifest.model, bundle.decoding, abreast(bundle.provider, cores()))

    def score(self, paths: Sequence[Path], side: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """Raw score and map of each image file, in order, each by itself as it comes to the line.

        A map, float32, is as large as its picture, or (side, side). Outside the region of interest it holds the lowest
        value that it has inside. On one thread a graph answers the same on every machine, and takes less of the
        processor in all; so there are as many pictures at once as cores, and as memory has room for.
        """
        room = Room(AT_ONCE)

        def one(path: Path) -> tuple[float, np.ndarray]:
            with room.of(extent(path, self.decoding)):
                return self._one(path, side)

        yield from progress(side_by_side(one, paths, self.most), f"graph: scoring {len(paths)} images", len(paths))

    def _one(self, path: Path, side: int | None) -> tuple[float, np.ndarray]:
        rules = self.decoding
        scores, maps, _ = seen(run_of(self.session), [decode(path, rules=rules)], rules)
        return float(scores[0]), quiet(squeezed(maps[0, 0], side) if side else maps[0, 0], rules.roi)

    def values(self, heat: np.ndarray) -> np.ndarray:
        """(1, k): what a map (H, W) holds inside the region of interest."""
        return values_inside(heat[None], self.decoding.roi)


def state(folder: Path, model: str, rules: Decoding) -> None:
    """Write what is known of the graph in *folder* beside it."""
    write_json(folder / FILE, {"model": model, "decoding": rules.kept})


def stands(folder: Path, model: Path) -> bool:
    """Whether *folder* holds the graph of the very weights in *model*."""
    if not all((folder / name).exists() for name in (GRAPH, FILE)):
        return False
    return bool(read_json(folder / FILE)["model"] == tree_hash(model / "model.safetensors"))
