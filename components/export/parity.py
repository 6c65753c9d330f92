"""The parity gate: the graph must score real images as the trained detector does."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from components.calibration import decide
from components.detectors.contract import Detector
from components.imaging import decode, to_tensor
from components.progress import progress
from components.runtime import session


def compare(
    detector: Detector, graph: Path, paths: list[Path], names: list[str], calibration: dict[str, Any]
) -> dict[str, Any]:
    """Scores, maps and decisions of both on whole files and one batch; differences relative to the range seen."""
    opened = session(graph)
    pairs = [_both(detector, opened, to_tensor(decode(p))[None]) for p in progress(paths, "parity")]
    batch = torch.stack([to_tensor(decode(paths[0])), to_tensor(decode(paths[0])).flip(2)])
    pairs.append(_both(detector, opened, batch))
    ours, theirs = (np.concatenate([pair[k] for pair in pairs]).astype(np.float64) for k in (0, 1))
    span = max(float(np.ptp(ours)), 1e-12)
    low, high = min(float(p[3]) for p in pairs), max(float(p[4]) for p in pairs)
    map_errors = np.array([pair[2] for pair in pairs]) / max(high - low, 1e-12)
    errors = np.abs(ours - theirs) / span
    agree = [a == b for a, b in zip(decide(calibration, ours), decide(calibration, theirs), strict=True)]
    return {
        "images": len(paths),
        "provider": "CPUExecutionProvider",
        "score_error": float(errors.max()),
        "map_error": float(map_errors.max()),
        "decision_agreement": float(np.mean(agree)),
        "worst_image": names[int(np.argmax(errors[: len(names)]))],
    }


@torch.inference_mode()
def _both(detector: Detector, opened: Any, images: torch.Tensor) -> tuple[np.ndarray, np.ndarray, float, float, float]:
    mine = detector(images)
    score, heat = opened.run(["score", "map"], {"image": images.numpy()})
    own = mine.map.numpy()
    return mine.image.numpy(), score, float(np.abs(own - heat).max()), float(own.min()), float(own.max())
