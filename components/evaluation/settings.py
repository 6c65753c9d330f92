"""The knobs of the evaluation."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EvaluationSettings:
    """Side in pixels at which maps meet masks, resamples for intervals, limit of AUPRO, images per gallery row."""

    map_size: int = 256
    bootstrap: int = 1000
    aupro_limit: float = 0.3
    gallery: int = 6
