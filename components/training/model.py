"""A trained detector on disk (safetensors + JSON) and the way all of Loupe scores files with it in torch."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from components.backbones.batches import at_once
from components.backbones.runtime import through_graphs
from components.core.artefacts import read_json, write_json
from components.core.errors import BundleError
from components.core.progress import progress
from components.core.runtime import keep_freed_memory
from components.core.settings import build
from components.detectors.catalogue import create, detector_class
from components.detectors.contract import Detector, answer, scratch_keys
from components.pictures.decoding import DEFAULT, Decoding
from components.pictures.framing import quiet, values_inside
from components.pictures.heat import squeezed
from components.pictures.imaging import load_batch, seen_at
from components.pictures.kept import decode
from components.pictures.tiles import blended, boxes, placed


def save_model(detector: Detector, out: Path) -> None:
    """Write model.safetensors and settings.json into the existing folder *out*; scratch state is left out."""
    left = scratch_keys(detector)
    state = {k: v.detach().cpu().contiguous() for k, v in detector.state_dict().items() if k not in left}
    save_file(state, out / "model.safetensors")
    write_json(out / "settings.json", {"detector": detector.name, "settings": detector.settings})


def load_model(folder: Path) -> Detector:
    """The detector that ``save_model`` wrote, in eval mode on the CPU; what it frees while it scores is kept.

    Raises BundleError where the weights are of another version of the detector.
    """
    keep_freed_memory()
    saved = read_json(folder / "settings.json")
    kind = detector_class(saved["detector"])
    settings: Any = build(kind.settings_type, saved["settings"], str(folder / "settings.json"))
    detector = create(saved["detector"], settings, pretrained=False)
    state, scratch = load_file(folder / "model.safetensors"), scratch_keys(detector)
    what = f"{folder}: its weights do not fit {detector.name} as it is in this version of Loupe; train it again"
    if (state.keys() ^ detector.state_dict().keys()) - scratch:  # models of older versions hold scratch state too
        raise BundleError(what)
    try:
        detector.load_state_dict(state, strict=False)
    except RuntimeError as error:  # the same names with other shapes
        raise BundleError(what) from error
    return detector.eval()


def inputs_of(detector: Detector, paths: Sequence[Path], rules: Decoding = DEFAULT) -> Any:
    """What *detector* scores of image files, one draw of its ``inputs``: the one way from files to it in torch."""
    device = next(detector.parameters()).device
    seen = load_batch(paths, detector.sizes, detector.rules(rules))
    return detector.prepare([pictures.to(device) for pictures in seen])


@torch.inference_mode()
def score_pictures(detector: Detector, pictures: Sequence[np.ndarray], rules: Decoding = DEFAULT) -> np.ndarray:
    """float32 (N,): image scores of decoded pictures, uint8 (H, W, 3) each, or windows of frames, as if they came
    from files."""
    if rules.tiles:
        return np.array([cut_scores(detector, pixels, rules)[0] for pixels in pictures], np.float32)
    step = at_once(max(detector.sizes))
    parts = [pictures[start : start + step] for start in range(0, len(pictures), step)]
    return np.concatenate([_scores(detector, part) for part in parts])


def _scores(detector: Detector, pictures: Sequence[np.ndarray]) -> np.ndarray:
    device = next(detector.parameters()).device
    inputs = detector.prepare([images.to(device) for images in seen_at(pictures, detector.sizes)])
    return detector.score(inputs, (detector.size, detector.size)).image.float().cpu().numpy()


@torch.inference_mode()
def cut_scores(
    detector: Detector, pixels: np.ndarray, rules: Decoding, whole: bool = False, early: bool = False
) -> tuple[float, np.ndarray]:
    """Score of a picture that is seen square by square, and its map: (H, W) with *whole*, else with squares of the
    detector's own size. What the graph does at the line (``decision.seeing``), in torch."""
    device, side = next(detector.parameters()).device, detector.size
    height, width = pixels.shape[:2]
    found = boxes(height, width, rules.tiles, rules.roi)
    scores, maps = [], []
    for box in found:
        square = box.of(pixels)
        inputs = detector.prepare([images.to(device) for images in seen_at([square], detector.sizes)])
        said = answer(detector, inputs, (square.shape[0], square.shape[1]) if whole else (side, side), early)
        scores.append(float(said.image[0]))
        maps.append(said.map[0, 0].float().cpu().numpy())
    at, *shape = (found, height, width) if whole else placed(found, side, height, width)
    return max(scores), blended(maps, at, *shape)


def score_files(
    detector: Detector,
    paths: Sequence[Path],
    batch_size: int | None = None,
    rules: Decoding = DEFAULT,
    graphs: Path | None = None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Score image files in order: per batch, image scores (B,) and maps (B, size, size), float32.

    Each file, or each of its squares, is resized to every one of ``detector.sizes`` by the very operation inside the
    detector's graph. Outside the region of interest a map holds the lowest value that it has inside. *graphs* is where
    those of frozen backbones lie, if they are kept.
    """
    keep_freed_memory()
    with through_graphs(detector, graphs):
        yield from _scored(detector, paths, batch_size, rules)


@torch.inference_mode()
def _scored(
    detector: Detector, paths: Sequence[Path], batch_size: int | None, rules: Decoding
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rules = detector.rules(rules)
    said = f"{detector.name}: scoring {len(paths)} images"
    if rules.tiles:
        for path in progress(paths, said):
            score, heat = cut_scores(detector, decode(path, rules=rules), rules)
            yield np.array([score], np.float32), quiet(squeezed(heat, detector.size)[None], rules.roi)
        return
    step = batch_size or at_once(max(detector.sizes))
    for start in progress(range(0, len(paths), step), said):
        inputs = inputs_of(detector, paths[start : start + step], rules)
        scores = detector.score(inputs, (detector.size, detector.size))
        yield scores.image.float().cpu().numpy(), quiet(scores.map[:, 0].float().cpu().numpy(), rules.roi)


def map_values(maps: np.ndarray, rules: Decoding) -> np.ndarray:
    """(N, k): what heat maps (N, H, W) hold inside the region of interest."""
    return values_inside(maps, rules.roi)
