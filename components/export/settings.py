"""The knobs of export."""

from dataclasses import dataclass

from components.calibration.settings import CascadeSettings


@dataclass(frozen=True)
class ExportSettings:
    """*tolerance* is the largest difference of scores and maps, relative to their span, that the gate lets pass.

    *described_images* fit normals set the axes of the embedding. *cascade* is for detectors that can answer early.
    """

    opset: int = 20
    parity_images: int = 32
    described_images: int = 256
    tolerance: float = 1e-3
    cascade: CascadeSettings = CascadeSettings()
