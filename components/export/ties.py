"""What a detector says of a picture that changes by less than can be seen.

Some take one of two things that are equally near, such as a fifth neighbour or a word. Which one, rounding decides, and
the map jumps by what they differ in. No graph can follow that, and none is worse for it (docs/adr/0058).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from components.detectors.contract import Detector, Scores

STEPS = (1e-7, 1e-6, 1e-5)  # of the range of a picture; the last one is a four-hundredth of a grey level
DRAWS = 8  # of each step
Scorer = Callable[[Sequence[Path], tuple[int, int]], Scores]


def shaken(detector: Detector, scorer: Scorer) -> list[Scorer]:
    """*scorer*, which scores files by *detector*, on pictures with a little noise: the least first."""
    return [partial(_scored, detector, scorer, step, seed) for step in STEPS for seed in range(DRAWS)]


def _scored(
    detector: Detector, scorer: Scorer, step: float, seed: int, paths: Sequence[Path], size: tuple[int, int]
) -> Scores:
    with _noise(detector, step, seed):
        return scorer(paths, size)


@contextmanager
def _noise(detector: Detector, step: float, seed: int) -> Iterator[None]:
    """Within, *detector* prepares pictures with Gaussian noise of deviation *step*, of *seed*."""
    plain, generator = detector.prepare, torch.Generator().manual_seed(seed)

    def prepare(pictures: Sequence[Tensor]) -> object:
        drawn = (torch.randn(p.shape, generator=generator).to(p.device) for p in pictures)
        return plain([p + step * noise for p, noise in zip(pictures, drawn, strict=True)])

    vars(detector)["prepare"] = prepare  # before the method of its class
    try:
        yield
    finally:
        del vars(detector)["prepare"]
