"""Short trainings in this process: the loop, the figures of the test split, and how two sets of scores differ.

A training's seed moves its weights and batches alone; the images are those of ``images``.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric

from benchmarks.common.asked import Overrides
from benchmarks.common.images import KEPT, SIDE, STEP, View
from benchmarks.common.results import commit
from benchmarks.common.runner import one_thread
from benchmarks.common.tables import noted, within
from components.core.records import kept_score
from components.detectors.catalogue import create
from components.detectors.contract import Detector, Phase, TrainingData
from components.evaluation.metrics import bootstrap, image_metrics, pixel_metrics
from components.training.checkpoint import Checkpoint
from components.training.loop import Loop, Select
from components.training.select import SyntheticAUROC, moved

ROUNDS = 1000  # of a bootstrap


class Nowhere(Checkpoint):
    """Nothing is resumed: a variant takes a minute."""

    def __init__(self) -> None:
        super().__init__(Path(), "")

    def load(self) -> None:
        return None

    def save(self, tensors: Any, position: Any) -> None:  # noqa: ARG002
        return None


def trained(
    detector: Detector, data: TrainingData, seed: int, select: Select, behind: Callable[[str], None] = lambda _: None
) -> Loop:
    """Train *detector*, on a GPU where there is one; *behind* is called with the name of every phase that has ended."""
    phases = detector.phases

    def watched(given: TrainingData) -> Iterator[Phase]:
        for phase in phases(given):
            yield phase
            behind(phase.name)

    detector.phases = watched  # type: ignore[method-assign, assignment]
    fabric = Fabric(accelerator="auto", devices=1)
    fabric.to_device(detector)
    loop = Loop(detector, select, Nowhere(), seed, float("inf"), fabric)
    loop.run(data)
    detector.eval()
    return loop


def figures(detector: Detector, table: Any, view: View, batch: int = 16) -> tuple[dict[str, Any], np.ndarray]:
    """Image AUROC with its interval and pixel AP of the test split, and the image scores (N,)."""
    scores, maps = scored(detector, table, batch)
    labels, (known, masks) = view.labels(), view.masks(STEP)
    found = {"auroc": image_metrics(labels, scores)["auroc"], "interval": bootstrap(labels, scores, ROUNDS, 0)["auroc"]}
    return found | {"pixel_ap": pixel_metrics(masks, maps[known])["ap"] if masks.any() else None}, scores


@torch.inference_mode()
def scored(detector: Detector, table: Any, batch: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Image scores (N,) and maps (N, SIDE / STEP, SIDE / STEP) of *table*."""
    detector.eval()
    device, found = next(detector.parameters()).device, []
    for i in range(0, len(table), batch):
        inputs = moved(table.take(range(i, min(i + batch, len(table)))), device)
        image, maps = detector.score(inputs, (SIDE, SIDE))
        found.append((image.double().cpu(), maps[:, 0, ::STEP, ::STEP].float().cpu()))
    scores, marked = (torch.cat(part).numpy() for part in zip(*found, strict=True))
    return finite(scores), finite(marked)


def finite(values: np.ndarray) -> np.ndarray:
    return np.nan_to_num(values, nan=1e30, posinf=1e30, neginf=-1e30)


def learned(name: str, settings: Any) -> tuple[dict[str, Any], Detector]:
    """One training of VIEW/DETECTOR in this process: CPU seconds, history and the figures of the test split."""
    one_thread()
    view_name, _, kind = name.partition("/")
    view, started = View.of(view_name), time.process_time()
    torch.manual_seed(0)
    made = create(kind, settings)
    loop = trained(made, view.fit(), 0, SyntheticAUROC(view.check()))
    seconds = round(time.process_time() - started, 1)
    test, _ = figures(made, made.inputs(view.test()), view)
    return {"test": test, "history": loop.history, "seconds": seconds, "commit": commit()}, made


def variants(asked: dict[str, tuple[Overrides, ...]]) -> dict[str, Overrides]:
    """All that is *asked* about each VIEW/DETECTOR, by VIEW/DETECTOR/LABEL."""
    return {f"{name}/{label(overrides)}": overrides for name, several in asked.items() for overrides in several}


def kept_at(question: str, variant: str, kind: str = "json") -> Path:
    """Where the process that trains a variant leaves what it found."""
    return KEPT / f"{question}-{variant.replace('/', '-')}.{kind}"


def changed(labels: Iterable[str], longest: int) -> tuple[dict[str, str], str]:
    """How the labels of variants stand in a table, and the notes below it on those longer than *longest*."""
    texts = {what: "nothing" if what == "full" else f"`{what.replace(';', '`, `')}`" for what in labels}
    numbers, notes = noted(text for text in texts.values() if len(text) > longest)
    return {what: numbers.get(text, text) for what, text in texts.items()}, notes


def quality(entry: dict[str, Any]) -> tuple[str, str, str]:
    """Image AUROC with its interval, pixel AP and the synthetic AUROC of the epoch that was kept."""
    test = entry["test"]
    pixel = "no masks" if test["pixel_ap"] is None else f"{test['pixel_ap']:.3f}"
    return within(test["auroc"], test["interval"]), pixel, f"{kept_score(entry['history']) or 0.0:.3f}"


def label(overrides: Overrides) -> str:
    """The name of a variant: ``full``, or what it changes."""
    texts = (f"{k}={','.join(map(str, v)) if isinstance(v, list) else v}" for k, v in sorted(overrides.items()))
    return ";".join(texts) or "full"


def paired(labels: np.ndarray, on: np.ndarray, off: np.ndarray, rounds: int = ROUNDS) -> tuple[float, float]:
    """95 % bootstrap interval of AUROC(on) - AUROC(off); scores (seeds, N), the same images drawn for both."""
    wins = np.mean(
        [_wins(a[labels], a[~labels]) - _wins(b[labels], b[~labels]) for a, b in zip(on, off, strict=True)], 0
    )
    rng = np.random.default_rng(0)
    bad, good = (rng.multinomial(n, np.full(n, 1 / n), rounds) / n for n in wins.shape)
    low, high = np.quantile(((bad @ wins) * good).sum(1), [0.025, 0.975])
    return float(low), float(high)


def _wins(bad: np.ndarray, good: np.ndarray) -> np.ndarray:
    """1 where the anomalous image scores higher, 0.5 where both are equal: (bad, good), its mean is the AUROC."""
    return (bad[:, None] > good) + 0.5 * (bad[:, None] == good)
