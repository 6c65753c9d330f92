"""Simple statistics of an image's pixels: what the data checks and the drift monitor look at; numpy only."""

import numpy as np

from components.core.records import Measured
from components.pictures.framing import inside, shrunk

WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601


def grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) float32 in [0, 1]."""
    return (pixels.astype(np.float32) @ WEIGHTS) / 255


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
    """Second differences along both axes, the border mirrored."""
    wide = shade.astype(np.float64)
    return _second(wide).astype(np.float32) + _second(wide.T).T.astype(np.float32)


def _second(values: np.ndarray) -> np.ndarray:
    """From row to row; beyond the mirrored border nothing rises."""
    rises, found = values[1:] - values[:-1], np.zeros_like(values)
    found[:-1] = rises
    found[1:] -= rises
    return found
