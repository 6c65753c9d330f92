"""Every detector on every view: ``python -m benchmarks.fit [--jobs N] [--graphs] [VIEW/DETECTOR[@SEED] ...]``.

A view's data are checked, split and given synthetic anomalies once per seed; then each detector is trained, calibrated,
evaluated and exported by the stages that DVC and the flows call, training in a process of its own on one thread, so
that its time and peak memory are its own. Frozen features come from one store that all share: what they cost is
told apart. Figures go to benchmarks/results/fit.json; evaluation is on the test split, whose labels choose nothing.

--graphs: what was trained is exported again and its graph timed; every other figure stays.
"""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from components.backbones.extractor import Backbone, BackboneSettings
from components.backbones.runtime import FastBackbone
from components.core.artefacts import git_commit, read_json, write_json
from components.core.cache import cache_folder
from components.core.errors import LoupeError
from components.core.runtime import session
from components.datasets.loading import rows
from components.decision.batch import tensor
from components.detectors.catalogue import CATALOGUE, create, settings_for
from components.pictures.decoding import decode
from components.pipeline.params import load_params
from components.pipeline.stages import Stages

VIEWS = ("mtd", "screw", "elpv-mono", "elpv-poly")
WORK = Path("runs/benchmark")
RESULTS = Path(__file__).parent / "results" / "fit.json"
STAGES = ("train", "calibrate", "evaluate", "export")
LOCK = threading.Lock()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.fit")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--graphs", action="store_true")
    parser.add_argument("names", nargs="*")
    asked = parser.parse_args(arguments)
    names = asked.names or [f"{v}/{d}" for d in CATALOGUE for v in VIEWS]
    for view, seed in sorted({(n.split("/")[0], seed_of(n)) for n in names}):
        prepare(view, seed)
    with ThreadPoolExecutor(asked.jobs) as pool:
        list(pool.map(lambda name: record(name, exported if asked.graphs else measured), names))


def seed_of(name: str) -> int:
    return int(name.partition("@")[2] or 0)


def params_file(seed: int) -> Path:
    """params.yaml with this seed and artefacts of the benchmark's own."""
    folder = WORK / f"seed-{seed}"
    folder.mkdir(parents=True, exist_ok=True)
    values = yaml.safe_load(Path("params.yaml").read_text())
    path, text = folder / "params.yaml", yaml.safe_dump({**values, "seed": seed, "artefacts": str(folder)})
    with LOCK:  # the stages of another detector may be reading it
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    return path


def prepare(view: str, seed: int) -> None:
    prepared(Stages(load_params(params_file(seed)), view))


def prepared(stages: Stages) -> None:
    """Run what stands before training and has not run yet."""
    for part in stages.members:
        prepared(part)
    steps = [(stages.split, stages.folder / "split"), (stages.synthesise, stages.folder / "synthetic")]
    if not stages.members:
        steps[:0] = [(stages.manifest, stages.shared / "manifest"), (stages.validate, stages.shared / "validation")]
    for step, made in steps:
        if not made.exists():
            step()


def record(name: str, measure: Callable[[str], dict[str, Any]]) -> None:
    try:
        entry = measure(name)
    except (subprocess.CalledProcessError, LoupeError, OSError) as error:  # the others go on
        sys.stderr.write(f"{name}: {error}\n")
        return
    with LOCK:
        write_json(RESULTS, stored(RESULTS) | {name: entry})
    sys.stderr.write(f"{name}: image AUROC {entry['overall']['image']['auroc']:.3f}, {entry['seconds']['train']} s\n")


def stored(results: Path) -> dict[str, Any]:
    """What a file of results holds, nothing before the first run."""
    return dict(read_json(results)) if results.exists() else {}


def measured(name: str) -> dict[str, Any]:
    view, _, detector = name.partition("@")[0].partition("/")
    params = params_file(seed_of(name))
    stages = Stages(load_params(params), view)
    at = stages.of(detector)
    shutil.rmtree(at, ignore_errors=True)
    (seconds, busy, peak), *_ = [timed(stage, view, detector, params) for stage in STAGES]
    timing, metrics = read_json(at / "model" / "timing.json"), read_json(at / "evaluation" / "metrics.json")
    return {
        "overall": metrics["overall"],
        **by_group(metrics["groups"], read_json(at / "calibration" / "calibration.json")["groups"]),
        "split": metrics["split"],
        "seed": seed_of(name),
        "preset": stages.params.train.preset,
        "seconds": {"train": seconds, "train CPU": busy, **{k: round(v, 1) for k, v in timing["spent"].items()}},
        "features": timing["features"],
        "peak_memory_mb": peak,
        "parameters": parameters(detector),
        "state_mb": round((at / "model" / "model.safetensors").stat().st_size / 2**20, 1),
        **graph(at / "bundle", stages),
        "history": read_json(at / "model" / "history.json"),
        "hardware": f"one of {os.cpu_count()} cores, {platform.machine()}, no GPU",
        "commit": git_commit(),
    }


def exported(name: str) -> dict[str, Any]:
    """What is known of *name*, with the graph exported and timed by the code of today."""
    view, _, detector = name.partition("@")[0].partition("/")
    params = params_file(seed_of(name))
    stages = Stages(load_params(params), view)
    bundle = stages.of(detector) / "bundle"
    shutil.rmtree(bundle, ignore_errors=True)
    timed("export", view, detector, params)
    return {**read_json(RESULTS)[name], **graph(bundle, stages)}


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


def timed(stage: str, view: str, detector: str, params: Path) -> tuple[float, float, int]:
    """Seconds by the clock and of the processor, and peak resident MiB, of one stage in a process of its own."""
    command = [sys.executable, "-m", "components.pipeline.stages", stage, view, detector, "--params", str(params)]
    started = time.perf_counter()
    with (params.parent / f"{view}-{detector}.log").open("a") as log:
        process = subprocess.Popen(command, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, command)
    busy = usage.ru_utime + usage.ru_stime
    return round(time.perf_counter() - started, 1), round(busy, 1), usage.ru_maxrss // 1024


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
    given = [tensor(decode(path))[None] for path in paths[:: max(1, len(paths) // images)][:images]]
    small = torch.rand(1, 3, 256, 256)
    pairs = [(_ms(graph.run, None, {"image": image}), _ms(floor, small)) for _ in range(rounds) for image in given]
    ours, bare = np.median(np.array(pairs), axis=0)
    return {"ms": round(float(ours), 2), "bare_ms": round(float(bare), 2), "ratio": round(float(ours / bare), 2)}


def _ms(call: Any, *arguments: Any) -> float:
    started = time.perf_counter()
    call(*arguments)
    return 1000 * (time.perf_counter() - started)


if __name__ == "__main__":
    main(sys.argv[1:])
