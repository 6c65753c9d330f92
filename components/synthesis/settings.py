"""The knobs of synthetic anomalies."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SynthesisSettings:
    """Resolution in pixels, how many per image, and the ranges that areas and strengths are drawn from.

    An anomaly is drawn in a square of the picture's shorter side, at that side's own resolution but at *size* pixels at
    most; on a larger square what it changes is enlarged. *area* is its share of that square, not of the picture.
    """

    size: int = 1024  # beyond what any detector looks at: more would cost time and change nothing that is scored
    per_image: int = 1
    strategies: tuple[str, ...] = ("graded_small", "graded_faint", "graded_wide", "graded_structure")
    area: tuple[float, float] = (0.001, 0.1)
    # Weight of the source in the blend: 1 - beta of DRAEM. Strategies whose publication has another range keep theirs.
    strength: tuple[float, float] = (0.2, 1.0)
    textures: str | None = None  # a folder of texture images such as DTD; None: packaged and procedural ones
