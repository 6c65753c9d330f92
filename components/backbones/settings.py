"""The knobs of a backbone, which the settings of a method hold; read without torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class BackboneSettings:
    """Which network, at which taps (timm's ``out_indices``), at which square input size.

    Taps of a convolutional network are its stages, at stride 2 ** (tap + 1); those of a transformer its blocks.
    """

    name: str = "tf_efficientnet_lite0"
    taps: tuple[int, ...] = (1, 2, 3)
    size: int = 256
