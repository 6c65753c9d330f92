"""A training step of FastFlow by its shorter way beside the definition, in turns: docs/adr/0055.

Run by ``speed.py`` as a file: ``steps.py PRESET ROUNDS`` prints a row for each tap as JSON. A step is the likelihood of
a batch of drawn features and its gradient, on one thread; the optimiser's part is the same on both sides.
"""

import json
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.speed.turns import clocked, in_turns, ratio
from components.detectors.catalogue import create, settings_for

Way = Callable[[Tensor], tuple[Any, Tensor]]


def step(flow: Any, way: Way, features: Tensor) -> Tensor:
    """The gradient of all weights of *flow*, one row."""
    flow.zero_grad()
    maps, total = way(flow.norm(features))
    loss = (0.5 * torch.stack([part.square().sum((1, 2, 3)) for part in maps]).sum(0) - total).mean()
    loss.backward()
    return torch.cat([weight.grad.flatten() for weight in flow.parameters()])


def row(flow: Any, features: Tensor, rounds: int) -> dict[str, Any]:
    """Seconds of a step by both ways, and how far their gradients lie apart."""
    sides = {
        "plain": partial(step, flow, flow._stepped, features),
        "short": partial(step, flow, flow._learnt, features),
    }
    plain, short = (side() for side in sides.values())
    apart = float((plain - short).norm() / plain.norm())  # of all: rounding turns single rectifiers over
    found = in_turns({name: clocked(side) for name, side in sides.items()}, rounds)
    spent = {name: [figure["s"] for figure in figures] for name, figures in found.items()}
    faster, low, high = ratio(spent["plain"], spent["short"])
    about = {"maps": " x ".join(map(str, features.shape)), "rounds": rounds}
    seconds = {f"{name}_s": float(np.median(each)) for name, each in spent.items()}
    return about | seconds | {"times_faster": faster, "low": low, "high": high, "apart": apart}


def rows(preset: str, rounds: int) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    settings: Any = settings_for("fastflow", preset)
    detector: Any = create("fastflow", settings)
    taps = zip(detector.flows, detector.backbone.channels, detector.backbone.grids, strict=True)
    drawn = [(flow.train(), torch.randn(settings.batch_size, c, grid, grid)) for flow, c, grid in taps]
    return [row(flow, features, rounds) for flow, features in drawn]


if __name__ == "__main__":
    json.dump(rows(sys.argv[1], int(sys.argv[2])), sys.stdout, indent=1)
