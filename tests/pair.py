"""Two processes that train detectors together, for tests: ``python -m tests.pair FOLDER RANK ASKED``.

ASKED is a JSON file: names of detectors, a folder of pictures, a cache. Of each detector its learned state, its history
and its scores on the pictures are left in FOLDER, by process.
"""

import dataclasses
import functools
import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from components.backbones.features import FeatureStore
from components.detectors.catalogue import create, settings_for
from components.training.checkpoint import Checkpoint, learned
from components.training.data import FileImages, FitImages
from components.training.loop import Loop
from components.training.ranks import ALONE, Ranks
from components.training.select import scores_of
from components.training.several import Place, joined
from components.training.settings import TrainSettings
from components.training.train import _fabric

SECONDS = 120


def trained(name: str, changes: dict, pictures: Path, cache: Path, out: Path, ranks: Ranks = ALONE, place=None) -> None:
    """Train *name* on *pictures* and leave in *out* what came of it in this process."""
    paths = sorted(pictures.glob("*.png"))
    images = FitImages(FileImages(tuple(paths), tuple(p.name for p in paths)), FeatureStore(cache))
    torch.manual_seed(0)
    detector = create(name, dataclasses.replace(settings_for(name, "tiny"), **changes))
    check = functools.partial(worth, images=images, ranks=ranks)
    folder = out / f"{name}.{ranks.count}.{ranks.rank}"
    loop = Loop(detector, check, Checkpoint(folder / "checkpoint", "x"), 0, 1e9, _fabric(TrainSettings(), place), ranks=ranks)
    loop.run(images)
    scores = torch.from_numpy(scores_of(detector, detector.inputs(images), ranks))
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous().clone() for k, v in learned(detector).items()} | {"scores": scores}, folder / "state")
    (folder / "history.json").write_text(json.dumps(loop.history))


def worth(detector, images, ranks) -> float:
    """In place of an AUROC: every process has a part in it."""
    return float(scores_of(detector, detector.inputs(images), ranks).std())


def start(folder: Path, asked: Path) -> None:
    """Both processes, up to their end."""
    command = [sys.executable, "-m", "tests.pair", str(folder)]
    both = [subprocess.Popen([*command, str(rank), str(asked)]) for rank in range(2)]
    assert [process.wait(SECONDS) for process in both] == [0, 0]


def main(folder: Path, rank: int, asked: dict) -> None:
    torch.set_num_threads(1)
    place = Place(rank, 2, folder)
    with joined(place, SECONDS):
        for name, changes in asked["names"].items():
            trained(name, changes, Path(asked["pictures"]), Path(asked["cache"]), folder, Ranks(rank, 2), place)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), json.loads(Path(sys.argv[3]).read_text()))
