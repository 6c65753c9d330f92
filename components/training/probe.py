"""A fixed look at what is normal: a small PatchCore on the default backbone, whatever is trained later.

Its features of the fit normals are those that PatchCore reads later; they are computed once.
"""

from pathlib import Path

import torch

from components.backbones.runtime import FastBackbone, backbones
from components.detectors.catalogue import create, settings_for
from components.detectors.contract import Detector, OnePass
from components.training.data import FitImages, StoredImages
from components.training.select import moved

BANK = 1000  # patches that the probe keeps


_last: tuple[tuple[str, bool], Detector] | None = None


def probe_of(normals: StoredImages, preset: str) -> Detector:
    """The probe that has seen *normals*; as small as the preset tiny where that is what is trained.

    The last one is kept: a fit asks for it twice, for how hard anomalies are and for the moves.
    """
    global _last
    known, asked = _last, (normals.images.key, preset == "tiny")
    if known is None or known[0] != asked:
        _last = known = asked, _fitted(normals, asked[1])
    return known[1]


def keep_graph(folder: Path, preset: str) -> None:
    """Make the graph that the probe's features will come from, unless *folder* has it; a GPU needs none."""
    if not torch.cuda.is_available():
        for backbone in backbones(_made(preset == "tiny")):
            FastBackbone(backbone, folder)


def _made(tiny: bool) -> Detector:
    settings = settings_for("patchcore", "tiny" if tiny else "cpu", {"bank_size": BANK, "lists": 0})
    return create("patchcore", settings).eval()


@torch.inference_mode()
def _fitted(normals: StoredImages, tiny: bool) -> Detector:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    detector = _made(tiny).to(device)
    for phase in detector.phases(FitImages(normals.images, normals.store)):
        assert isinstance(phase, OnePass)
        for start in range(0, len(phase.table), phase.batch_size):
            rows = range(start, min(start + phase.batch_size, len(phase.table)))
            phase.update(moved(phase.table.take(rows), device))
        phase.finish()
    return detector
