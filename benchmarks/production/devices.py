"""What a second process changes and costs: the same training in one and in several, in turns.

On the machine's GPUs where there are any, else in processes of the CPU with one thread each. Features are computed anew
each time. Scores are those of the test split; its labels are read at the end and choose nothing. The view has to be
split already (``dvc repro``). Writes results/devices.json and devices.md.
"""

import os
import resource
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.common.results import RESULTS, add, commit, stored
from benchmarks.common.runner import one_thread, options
from benchmarks.common.tables import joined, markdown, wrapped
from components.core.runtime import SHARE
from components.datasets.loading import read_decoding, rows
from components.pipeline.params import load_params
from components.pipeline.stages import Stages
from components.training.model import load_model, score_files
from components.training.train import train

ABOUT = (
    "Test split, seed 0. *Apart* is the largest difference of a raw score, in standard deviations of all. CPU seconds "
    "are those of the whole training, processes included, with one thread each."
)
HEAD = ("view", "detector", "preset", "device", "processes", "image AUROC", "apart", "CPU s", "ratio")


def main(arguments: list[str]) -> None:
    parser = options("devices", __doc__, report=True)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--devices", type=int, default=2)
    parser.add_argument(
        "names", nargs="*", default=["elpv-mono/patchcore", "elpv-mono/fastflow"], metavar="VIEW/DETECTOR"
    )
    asked = parser.parse_args(arguments)
    for name in () if asked.report else asked.names:
        add(RESULTS / "devices.json", {f"{name}/{asked.preset}": compared(name, asked.preset, asked.devices)})
    (RESULTS / "devices.md").write_text(page(stored(RESULTS / "devices.json")))


def compared(name: str, preset: str, devices: int) -> dict[str, Any]:
    """One training in one process and one in *devices*: CPU seconds, AUROC, and how far the scores are apart."""
    one_thread()
    os.environ |= {SHARE: "1", "OMP_NUM_THREADS": "1"}
    view, _, detector = name.partition("/")
    stages = Stages(load_params(), view)
    test = rows(stages.folder / "split", "test")
    test = test[test["label"].isin(["normal", "anomalous"])]
    made = [_trained(stages, detector, preset, count, list(test["image_id"])) for count in (1, devices)]
    apart = np.abs(made[0][0] - made[1][0]).max() / made[0][0].std()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    told = {"processes": [1, devices], "apart": float(apart), "cpu_seconds": [seconds for _, seconds in made]}
    told["auroc"] = [float(roc_auc_score(test["label"] == "anomalous", scores)) for scores, _ in made]
    return {**told, "hardware": device, "commit": commit()}


def _trained(stages: Stages, detector: str, preset: str, count: int, names: Sequence[str]) -> tuple[np.ndarray, float]:
    """Raw scores (N,) of the pictures *names* by a training in *count* processes, and its CPU seconds."""
    split, began = stages.folder / "split", _seconds()
    with tempfile.TemporaryDirectory() as folder:
        asked = replace(stages.params.train, preset=preset, devices=count, store=f"{folder}/store")
        out = train(detector, split, stages.folder / "synthetic", stages.data, Path(folder) / "model", asked, 0)
        spent, rules = _seconds() - began, read_decoding(split)
        found = score_files(load_model(out), [stages.data / name for name in names], rules=rules)
        return np.concatenate([scores for scores, _ in found]).astype(np.float64), round(spent, 1)


def _seconds() -> float:
    """Of this process and of those that have ended below it."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def page(found: dict[str, Any]) -> str:
    """results/devices.md."""
    lines = [line for name, entry in sorted(found.items()) for line in _lines(name, entry)]
    return joined("# One training in several processes", wrapped(ABOUT), markdown(HEAD, lines))


def _lines(name: str, entry: dict[str, Any]) -> list[list[str]]:
    first = entry["cpu_seconds"][0]
    shown = zip(entry["processes"], entry["auroc"], ("-", f"{entry['apart']:.1e}"), entry["cpu_seconds"], strict=True)
    return [
        [*name.split("/"), entry["hardware"], str(count), f"{auroc:.4f}", apart, f"{spent:.1f}", f"{spent / first:.2f}"]
        for count, auroc, apart, spent in shown
    ]
