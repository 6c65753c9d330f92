"""The knobs of synthetic anomalies."""

from dataclasses import dataclass


@dataclass(frozen=True)
class SynthesisSettings:
    """Resolution in pixels, how many per image, and the ranges that areas and strengths are drawn from."""

    size: int = 256
    per_image: int = 1
    strategies: tuple[str, ...] = ("perlin_texture", "perlin_self", "cutpaste", "scar")
    area: tuple[float, float] = (0.001, 0.1)  # share of the image
    # Weight of the source in the blend: 1 - beta of DRAEM. Strategies whose publication has another range keep theirs.
    strength: tuple[float, float] = (0.2, 1.0)
    textures: str | None = None  # a folder of texture images such as DTD; None: packaged and procedural ones
