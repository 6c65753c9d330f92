"""The knobs of export."""

from dataclasses import dataclass

from components.calibration.settings import CascadeSettings
from components.core.runtime import Provider


@dataclass(frozen=True)
class Int8Settings:
    """When a graph with its backbone in 8-bit integers may stand in place of the float one; *wanted*: it is tried.

    *correlation* of the ranks of good pictures at least, *loss* of AUROC on synthetic anomalies at most, *tolerance* as
    that of the float graph, *faster* so many times at least, on one thread. *pictures* give the ranges.
    """

    wanted: bool = False
    correlation: float = 0.95
    loss: float = 0.005
    tolerance: float = 0.1
    faster: float = 1.2
    pictures: int = 32


@dataclass(frozen=True)
class ExportSettings:
    """*tolerance* is the largest difference of scores and maps, relative to their span, that the gate lets pass.

    *cascade* is for detectors that can answer early. *provider* computes the graph when it is held against the
    detector.
    """

    opset: int = 20
    parity_images: int = 32
    tolerance: float = 1e-3
    provider: Provider = "cpu"
    int8: Int8Settings = Int8Settings()
    cascade: CascadeSettings = CascadeSettings()
