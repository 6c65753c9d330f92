"""Simple statistics of an image's pixels: what the data checks and the drift monitor look at; numpy only."""

import numpy as np

from components.core.records import Measured
from components.pictures.framing import inside, shrunk

ROWS = 32  # of a picture that are looked at together
WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601


def grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) float32 in [0, 1]."""
    return (pixels.astype(np.float32) @ WEIGHTS) / 255


def is_grey(pixels: np.ndarray) -> bool:
    """Whether all channels of (..., 3) are the same."""
    return all(np.array_equal(pixels[..., 0], pixels[..., other]) for other in (1, 2))


def statistics(shade: np.ndarray, roi: str | None = None) -> Measured:
    """Of a grey picture: mean and standard deviation in [0, 1], and the variance of its Laplacian, all of the region
    of interest alone where there is one."""
    seen, edges = shade, laplacian(shade)
    if roi is not None:
        counts = inside(roi, *shade.shape)
        within = shrunk(counts)  # where no neighbour lies outside
        seen, edges = shade[counts], edges[within if within.any() else counts]
    return {
        "width": shade.shape[1],
        "height": shade.shape[0],
        "brightness": float(seen.mean()),
        "contrast": float(seen.std()),
        "sharpness": float(edges.var()),
    }


def laplacian(shade: np.ndarray) -> np.ndarray:
    """Second differences along both axes, the border mirrored: float32 (H, W).

    Some rows at a time: the copies in float64 stay in the processor's cache, however large the picture is.
    """
    found = np.empty_like(shade, np.float32)
    mirrored = np.concatenate([shade[:1], shade, shade[-1:]])
    for start in range(0, len(shade), ROWS):
        wide = mirrored[start : start + ROWS + 2].astype(np.float64)
        down = np.diff(np.diff(wide, axis=0), axis=0).astype(np.float32)
        np.add(down, _across(wide[1:-1]).astype(np.float32), out=found[start : start + ROWS])
    return found


def _across(rows: np.ndarray) -> np.ndarray:
    """From column to column; beyond the mirrored border nothing rises."""
    rises, found = np.diff(rows, axis=1), np.zeros_like(rows)
    found[:, :-1] = rises
    found[:, 1:] -= rises
    return found
