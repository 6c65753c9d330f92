"""A detector of your own on a folder: `python examples/own_detector.py DATA` (MVTec layout), without the catalogue.

It learns the mean colour of each position and scores by the distance to it. What a method must offer is in
components/detectors/contract.py; `loupe new-detector NAME` begins one that belongs to the house.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from lightning_fabric import Fabric
from sklearn.metrics import roc_auc_score
from torch import Tensor

from components.backbones.features import FeatureStore
from components.core.artefacts import file_hash
from components.detectors.contract import MethodInfo, OnePass, Phase, PixelDetector, Scores, TrainingData, scratch
from components.detectors.parts.blocks import upsample
from components.pictures.imaging import load_sizes
from components.training.checkpoint import Checkpoint
from components.training.data import FileImages, FitImages
from components.training.loop import Loop


@dataclasses.dataclass(frozen=True)
class MeanSettings:
    size: int = 64  # side in pixels that pictures are resized to


class PixelMean(PixelDetector):
    """Map: distance to the mean colour of the position; image score: its largest value."""

    name, settings_type, presets = "pixel_mean", MeanSettings, {"cpu": MeanSettings()}
    info = MethodInfo("Pixel mean", "none: an example", 2026, "none", "statistics of pixels", ())
    mean: Tensor
    sums: Tensor

    def __init__(self, settings: MeanSettings, pretrained: bool = True) -> None:
        super().__init__(settings, pretrained)
        self.register_buffer("mean", torch.zeros(3, settings.size, settings.size))
        scratch(self, "sums", torch.zeros(3, settings.size, settings.size, dtype=torch.float64))
        self.count = 0

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        yield OnePass("mean", data.pixels(self.size), self._add, self._finish)

    def score(self, pixels: Tensor, size: tuple[int, int]) -> Scores:
        distance = (pixels - self.mean).square().sum(1, keepdim=True).sqrt()
        return Scores(distance.flatten(1).amax(1), upsample(distance, size))

    def _add(self, pixels: Tensor) -> None:
        self.sums += pixels.double().sum(0)
        self.count += len(pixels)

    def _finish(self) -> None:
        self.mean.copy_(self.sums / self.count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data
    detector = PixelMean(MeanSettings())
    train(detector, sorted((data / "train" / "good").glob("*")))
    good, bad = sorted((data / "test" / "good").glob("*")), sorted((data / "test").glob("[!g]*/*"))
    with torch.inference_mode():
        images = torch.cat([load_sizes(path, detector.sizes)[0] for path in (*good, *bad)])
        scores = detector(images).image
    auroc = roc_auc_score([0] * len(good) + [1] * len(bad), scores)
    print(f"image AUROC {auroc:.3f} on {len(good)} good and {len(bad)} defective pictures")  # noqa: T201


def train(detector: PixelMean, paths: list[Path]) -> None:
    """Through the one training loop, which checkpoints and resumes."""
    images = FileImages(tuple(paths), tuple(map(file_hash, paths)))
    with tempfile.TemporaryDirectory() as folder:
        fabric, checkpoint = Fabric(accelerator="cpu", devices=1), Checkpoint(Path(folder), "example")
        Loop(detector, lambda _: 0.5, checkpoint, 0, 60.0, fabric).run(FitImages(images, FeatureStore(None)))
    detector.eval()


if __name__ == "__main__":
    main()
