"""One detector on one view by the pipeline's stages, and its figures: what ``loupe bench fit`` asks for each name.

Each stage is a process of its own on one thread, so that its time and peak memory are its own.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.evidence import CHOICE, told
from benchmarks.common.results import RESULTS, add, commit, stored
from benchmarks.common.runner import beside, clocked, staged
from benchmarks.common.views import named, params_file, prepare, stages_of
from components.backbones.extractor import Backbone, BackboneSettings
from components.backbones.runtime import FastBackbone
from components.core.artefacts import read_json
from components.core.cache import cache_folder
from components.core.errors import LoupeError
from components.core.runtime import session
from components.datasets.loading import read_decoding, rows
from components.decision.bundle import run_of
from components.decision.seeing import seen
from components.detectors.catalogue import create, settings_for
from components.pictures.decoding import decode
from components.pipeline.stages import Stages

FIT = RESULTS / "fit.json"
STAGES = ("train", "calibrate", "evaluate", "export")


def fitted(names: Iterable[str], jobs: int = 1, graphs: bool = False) -> None:
    """Measure every VIEW/DETECTOR[@SEED] and store it; one that fails does not stop the others."""
    names = list(names)
    for view, seed in sorted({(view, seed) for view, _, seed in map(named, names)}):
        prepare(view, seed)
    beside(jobs, lambda name: record(name, exported if graphs else measured), names)


def record(name: str, measure: Callable[[str], dict[str, Any]]) -> None:
    try:
        entry = measure(name)
    except (subprocess.CalledProcessError, LoupeError, OSError) as error:  # the others go on
        sys.stderr.write(f"{name}: {error}\n")
        return
    add(FIT, {name: entry})
    sys.stderr.write(f"{name}: image AUROC {entry['overall']['image']['auroc']:.3f}, {entry['seconds']['train']} s\n")


def measured(name: str) -> dict[str, Any]:
    view, detector, seed = named(name)
    stages = stages_of(view, seed)
    at = stages.of(detector)
    shutil.rmtree(at, ignore_errors=True)
    (seconds, busy, peak), *_ = [staged(stage, view, detector, params_file(seed)) for stage in STAGES]
    timing, metrics = read_json(at / "model" / "timing.json"), read_json(at / "evaluation" / "metrics.json")
    auroc = metrics["overall"]["image"]["auroc"]
    add(CHOICE, {name: told(at, auroc, commit())})
    return {
        "overall": metrics["overall"],
        **by_group(metrics["groups"], read_json(at / "calibration" / "calibration.json")["groups"]),
        "split": metrics["split"],
        "metric_version": metrics["metric_version"],
        "seed": seed,
        "preset": stages.params.train.preset,
        "seconds": {"train": seconds, "train CPU": busy, **{k: round(v, 1) for k, v in timing["spent"].items()}},
        "features": timing["features"],
        "peak_memory_mb": peak,
        "parameters": parameters(detector),
        "state_mb": round((at / "model" / "model.safetensors").stat().st_size / 2**20, 1),
        **graph(at / "bundle", stages),
        "history": read_json(at / "model" / "history.json"),
        "hardware": f"one of {os.cpu_count()} cores, {platform.machine()}, no GPU",
        "commit": commit(),
    }


def exported(name: str) -> dict[str, Any]:
    """What is known of *name*, with the graph exported and timed by the code of today."""
    view, detector, seed = named(name)
    stages = stages_of(view, seed)
    bundle = stages.of(detector) / "bundle"
    for folder in (bundle, bundle.with_name("graph")):
        shutil.rmtree(folder, ignore_errors=True)
    staged("export", view, detector, params_file(seed))
    return {**stored(FIT)[name], **graph(bundle, stages)}


def graph(bundle: Path, stages: Stages) -> dict[str, Any]:
    """Time of the exported graph, and how far it is from the detector."""
    parity = {k: v for k, v in read_json(bundle / "parity.json").items() if k.endswith("error")}
    return {"onnx": latency(bundle, stages), "parity": parity}


def by_group(groups: dict[str, Any], calibrated: dict[str, Any]) -> dict[str, Any]:
    """Of several groups the figures, and whose normals set each threshold; of one, nothing: its figures are overall."""
    if len(groups) < 2:
        return {}
    bare = {g: {**f, "pixel": {k: v for k, v in f["pixel"].items() if k != "curve"}} for g, f in groups.items()}
    return {"groups": bare, "calibration": {g: "own" if "scores" in c else "overall" for g, c in calibrated.items()}}


def parameters(detector: str) -> dict[str, float]:
    """Millions of numbers that training moves by gradient, and of frozen ones."""
    made = create(detector, settings_for(detector, "cpu"))
    counts = {True: 0, False: 0}
    for value in made.parameters():
        counts[value.requires_grad] += value.numel()
    return {"learned": round(counts[True] / 1e6, 2), "frozen": round(counts[False] / 1e6, 2)}


def latency(bundle: Path, stages: Stages, images: int = 8, rounds: int = 5) -> dict[str, float]:
    """ms per image on one thread, from the decoded picture to the score: the graph, and the bare backbone in turn.

    Bare: tf_efficientnet_lite0, taps 1 to 3, 256 pixels. The median of the rounds.
    """
    graph = session(bundle / "model.onnx", 1)
    floor = FastBackbone(Backbone(BackboneSettings()), cache_folder() / "features", 1)
    paths = [stages.data / name for name in sorted(rows(stages.folder / "split", "test")["image_id"])]
    rules = read_decoding(stages.folder / "split")
    given = [decode(path, rules=rules) for path in paths[:: max(1, len(paths) // images)][:images]]
    small = torch.rand(1, 3, 256, 256)
    calls = [(partial(seen, run_of(graph), [pixels], rules), partial(floor, small)) for pixels in given]
    pairs = [(clocked(ours)[1], clocked(bare)[1]) for _ in range(rounds) for ours, bare in calls]
    ours, bare = np.median(np.array(pairs), axis=0)
    return {"ms": round(float(ours), 2), "bare_ms": round(float(bare), 2), "ratio": round(float(ours / bare), 2)}
