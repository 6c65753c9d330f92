"""How well the first stage of DSR learns from the normals of every view at hand.

The fit normals of all views and as many natural images train the quantised latent space and its general decoder, in the
one loop. Writes runs/quantiser/<preset>.safetensors, which the setting ``dsr.quantiser`` takes. Its SHA-256 and what
PSNR it reaches on calibrate normals of each view, none of which it has seen, go to results/quantiser.json.
"""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning_fabric import Fabric
from safetensors.torch import save_file

from benchmarks.common.results import RESULTS, add
from benchmarks.common.runner import options
from benchmarks.common.views import VIEWS, prepare, stages_of
from components.backbones.features import FeatureStore
from components.core.artefacts import file_hash, values_hash
from components.core.runtime import keep_freed_memory
from components.core.settings import plain
from components.datasets.loading import rows
from components.detectors.catalogue import settings_for
from components.detectors.contract import Phase, TrainingData
from components.detectors.methods.dsr import DSR, decibels
from components.training.checkpoint import Checkpoint
from components.training.data import FileImages, FitImages
from components.training.loop import Loop

OUT = Path("runs/quantiser")
SEED = 0


class Quantiser(DSR):
    """DSR that stops behind its first stage."""

    def phases(self, data: TrainingData) -> Iterable[Phase]:
        yield next(iter(super().phases(data)))


def main(arguments: list[str]) -> None:
    parser = options("quantiser", __doc__)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("views", nargs="*", default=list(VIEWS), metavar="VIEW")
    asked = parser.parse_args(arguments)
    keep_freed_memory()
    detector = trained(asked.preset, asked.views)
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{asked.preset}.safetensors"
    save_file({k: v.detach().cpu().contiguous() for k, v in detector.latent.state_dict().items()}, path)
    reached = {view: round(psnr(detector, images(view, "calibrate")), 2) for view in asked.views}
    add(RESULTS / "quantiser.json", {asked.preset: {"sha256": file_hash(path), "calibrate_psnr": reached}})
    for view, value in reached.items():
        sys.stdout.write(f"{view}: {value} dB\n")
    sys.stdout.write(f"{path} {file_hash(path)}\n")


def images(*sides: str) -> FileImages:
    """The normals of one side of a view, or of several: (view, side) in turn."""
    found: list[tuple[Path, str]] = []
    for view, side in zip(sides[::2], sides[1::2], strict=True):
        prepare(view, SEED)
        stages = stages_of(view, SEED)
        table: pd.DataFrame = rows(stages.folder / "split", side, "normal")
        found += [(stages.data / i, h) for i, h in zip(table["image_id"], table["sha256"], strict=True)]
    return FileImages(tuple(path for path, _ in found), tuple(digest for _, digest in found))


def trained(preset: str, views: list[str]) -> Quantiser:
    settings: Any = settings_for("dsr", preset, {"quantiser": None})
    normals = images(*(part for view in views for part in (view, "fit")))
    fingerprint = values_hash([plain(settings), normals.key, SEED])
    torch.manual_seed(SEED)
    detector, checkpoint = Quantiser(settings), Checkpoint(OUT / f".{preset}.checkpoint", fingerprint)
    fabric = Fabric(accelerator="auto", devices=1)
    fabric.to_device(detector)
    Loop(detector, lambda _: 0.5, checkpoint, SEED, 20.0, fabric).run(FitImages(normals, FeatureStore(None), SEED))
    checkpoint.discard()
    return detector.eval()


@torch.inference_mode()
def psnr(detector: DSR, normals: FileImages) -> float:
    """Mean PSNR of the general decoder, in dB."""
    device, total = next(detector.parameters()).device, 0.0
    for i in range(len(normals)):
        image = normals.pixels([i], detector.size).to(device)
        total += float(decibels(image, detector.latent.decode(*detector.latent.encode(image))))
    return total / len(normals)
