"""Two processes that train detectors together, for tests: ``python -m tests.pair FOLDER RANK`` with FOLDER/asked.json.

*names* there are trained whole, of *steps* one step is taken; what came of it is left in FOLDER, by name and process.
"""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from components.backbones import features as stored
from components.detectors.catalogue import create, settings_for
from components.training.checkpoint import Checkpoint, learned
from components.training.data import FileImages, FitImages
from components.training.filling import SharedStore
from components.training.loop import Loop, drawn_order, learning
from components.training.ranks import ALONE, Ranks
from components.training.select import scores_of
from components.training.settings import TrainSettings
from components.training.several import Place, joined
from components.training.train import _fabric
from tests.given import in_torch

SECONDS = 200


class EnoughError(Exception):
    """The first step is taken."""


class First(Loop):
    """Runs closed forms up to the first gradient phase, and one step of that; ``step`` is what came of it."""

    step: dict[str, torch.Tensor]

    def _optimise(self, phase):
        optimisers = self._optimisers(phase)
        rows = drawn_order(phase.table, self._generator(phase, 0))[: phase.batch_size]
        torch.manual_seed(self._number(phase, 0, 0))
        with learning(self.detector, phase):
            losses = self._step(phase, optimisers, [], rows, 0.0)
        moved = [p for player in phase.players for p in player.parameters if p.grad is not None]
        self.step = {"losses": torch.tensor(losses), "gradient": torch.cat([p.grad.flatten() for p in moved])}
        raise EnoughError


def images_in(folder: Path, cache: Path, ranks: Ranks) -> FitImages:
    paths = sorted(folder.glob("*.png"))
    return FitImages(FileImages(tuple(paths), tuple(p.name for p in paths)), SharedStore(cache, ranks=ranks))


def loop_of(name: str, images: FitImages, out: Path, kind: type[Loop], ranks: Ranks, place: Place | None) -> Loop:
    torch.manual_seed(0)
    detector = create(name, settings_for(name, "tiny"))
    check = functools.partial(worth, images=images, ranks=ranks)
    kept = Checkpoint(out / f"{name}.{kind.__name__}.{ranks.count}", "x")
    return kind(detector, check, kept, 0, 1e9, _fabric(TrainSettings(), place), ranks=ranks)


def worth(detector: Any, images: FitImages, ranks: Ranks) -> float:
    """In place of an AUROC, and every epoch is worth the same: noise must not choose."""
    return float(len(scores_of(detector, detector.inputs(images), ranks)))


def trained(name: str, images: FitImages, out: Path, ranks: Ranks = ALONE, place: Place | None = None) -> None:
    loop = loop_of(name, images, out, Loop, ranks, place)
    loop.run(images)
    scores = torch.from_numpy(scores_of(loop.detector, loop.detector.inputs(images), ranks))
    state = {k: v.contiguous().clone() for k, v in learned(loop.detector).items()}
    save_file({**state, "scores": scores}, out / f"{name}.{ranks.count}.{ranks.rank}")
    (out / f"{name}.{ranks.count}.{ranks.rank}.json").write_text(json.dumps(loop.history))


def stepped(name: str, images: FitImages, out: Path, ranks: Ranks = ALONE, place: Place | None = None) -> None:
    loop = loop_of(name, images, out, First, ranks, place)
    try:
        loop.run(images)
    except EnoughError:
        save_file(loop.step, out / f"{name}.step.{ranks.count}.{ranks.rank}")


def start(folder: Path) -> None:
    """Both processes, up to their end."""
    both = [subprocess.Popen([sys.executable, "-m", "tests.pair", str(folder), str(rank)]) for rank in range(2)]
    try:
        assert [process.wait(SECONDS) for process in both] == [0, 0]
    finally:
        for process in both:
            process.kill()
            process.wait()


def main(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    stored.extractor = in_torch  # a backbone's graph takes seconds to export
    asked, place, ranks = json.loads((folder / "asked.json").read_text()), Place(rank, 2, folder), Ranks(rank, 2)
    with joined(place, SECONDS):
        images = images_in(folder / "pictures", Path(asked["cache"]), ranks)
        for name in asked["names"]:
            trained(name, images, folder, ranks, place)
        for name in asked["steps"]:
            stepped(name, images, folder, ranks, place)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
