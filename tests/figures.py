"""Figures as a benchmark and a training store them, made up."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from components.core.records import CHECK_COLUMNS


def checked(kinds: Sequence[str], moved: dict[str, float], seed: int) -> pd.DataFrame:
    """CHECK_COLUMNS of a detector to which pictures of some kinds are so many deviations from normal."""
    scores = np.random.default_rng(seed).normal(0, 1, len(kinds)) + [moved.get(kind, 0.0) for kind in kinds]
    names = [str(number) for number in range(len(kinds))]
    rows = zip(names, kinds, [np.nan] * len(kinds), scores, strict=True)
    return pd.DataFrame(rows, columns=list(CHECK_COLUMNS))


def overall(auroc: float, masks: bool = True) -> dict:
    pixel = {"auroc": 0.9, "ap": 0.4, "aupro": 0.8} if masks else {"not_available": "no masks"}
    image = {"auroc": auroc, "ap": 0.95, "f1_max": 0.9, "interval": {"auroc": [auroc - 0.1, auroc + 0.1]}}
    return {"image": image, "pixel": pixel, "false_alarm_rate": {"rate": 0.05}, "miss_rate": {"rate": 0.2}}


def entry(auroc: float = 0.8, **more: object) -> dict:
    """As loupe bench fit writes it now."""
    history = [{"phase": "one", "epoch": i, "loss": 2.0 - i, "synthetic_auroc": 0.7} for i in range(2)]
    history += [{"phase": "two", "epoch": 0, "loss": 5.0}, {"phase": "last", "epoch": 0, "synthetic_auroc": 0.7}]
    return {
        "overall": overall(auroc),
        "seconds": {"train": 80.0, "drawing": 8.0, "steps": 40.0, "choosing": 16.0},
        "features": {"seconds_spent": 8.0},
        "peak_memory_mb": 1800,
        "parameters": {"learned": 0.56, "frozen": 3.0},
        "state_mb": 21.9,
        "onnx": {"ms": 25.7, "bare_ms": 16.0, "ratio": 1.61},
        "history": history,
        "commit": "0123abc",
        **more,
    }


def old_entry() -> dict:
    """As it was written before there was a time of the graph."""
    return {
        "overall": overall(0.9, masks=False),
        "seconds": {"train": 54.0, "whole fit command": 135.0},
        "peak_memory_mb": 2786,
        "history": [],
        "commit": "0123abc+",
    }
