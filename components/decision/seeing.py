"""What a graph says of whole pictures: it sees them square by square where the rules cut them."""

from collections.abc import Callable, Sequence

import numpy as np

from components.pictures.decoding import Decoding
from components.pictures.tiles import blended, boxes

AT_ONCE = 16_000_000  # pixels: with map and statistics each takes some 40 bytes
ON_CORES = ("cpu", "openvino")  # providers that compute where Python does
Run = Callable[[np.ndarray], Sequence[np.ndarray]]  # (B, 3, H, W) -> scores (B,), maps (B, 1, H, W), embeddings (B, 16)


def abreast(provider: str, most: int) -> int:
    """How many pictures are seen at once, where the processor has room for *most*; a GPU has one at a time."""
    return most if provider in ON_CORES else 1


def tensor(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (3, H, W) float32 in [0, 1], contiguous; a window of frames likewise, frame by frame."""
    return np.ascontiguousarray(np.moveaxis(pixels, -1, -3)).astype(np.float32) / np.float32(255)


def seen(run: Run, pictures: Sequence[np.ndarray], rules: Decoding) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores (B,), maps (B, 1, H, W) and embeddings (B, 16) of decoded pictures (H, W, 3) of one shape, or of
    the last frames of windows (T, H, W, 3).

    One graph run for all where each is seen as a whole; else one run for each square, so that memory does not grow with
    their number: the picture's score is the largest of its squares, its embedding their mean, its map blended.
    """
    if not rules.tiles:
        scores, maps, embeddings = run(np.stack([tensor(pixels) for pixels in pictures]))
        return scores, maps, embeddings
    parts = zip(*(_cut(run, pixels, rules) for pixels in pictures), strict=True)
    scores, maps, embeddings = (np.stack(part) for part in parts)
    return scores, maps, embeddings


def _cut(run: Run, pixels: np.ndarray, rules: Decoding) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width = pixels.shape[:2]
    found = boxes(height, width, rules.tiles, rules.roi)
    scores, maps, embeddings = zip(*(run(tensor(box.of(pixels))[None]) for box in found), strict=True)
    heat = blended([square[0, 0] for square in maps], found, height, width)
    return np.max(np.concatenate(scores)), heat[None], np.concatenate(embeddings).mean(0)
