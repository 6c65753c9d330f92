"""Simple statistics of an image's pixels: what the data checks and the drift monitor look at; numpy only."""

import numpy as np

from components.core.records import Measured

WEIGHTS = np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601


def grey(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 -> (H, W) float32 in [0, 1]."""
    return (pixels.astype(np.float32) @ WEIGHTS) / 255


def statistics(shade: np.ndarray) -> Measured:
    """Of a grey picture: mean and standard deviation in [0, 1], and the variance of its Laplacian."""
    return {
        "width": shade.shape[1],
        "height": shade.shape[0],
        "brightness": float(shade.mean()),
        "contrast": float(shade.std()),
        "sharpness": float(laplacian(shade).var()),
    }


def laplacian(shade: np.ndarray) -> np.ndarray:
    """Second differences along both axes, the border mirrored."""
    around = np.pad(shade, 1, mode="symmetric").astype(np.float64)
    rows = (around[:-2, 1:-1] + around[2:, 1:-1] - 2 * around[1:-1, 1:-1]).astype(np.float32)
    return rows + (around[1:-1, :-2] + around[1:-1, 2:] - 2 * around[1:-1, 1:-1]).astype(np.float32)
