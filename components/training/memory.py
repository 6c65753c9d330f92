"""How much memory a training will take, before it starts: measured on few invented pictures, and scaled to all.

Each phase takes one small step on noise, and the bytes of all living tensors are counted. What grows with the batch and
what grows with the pictures is told apart by three rounds. Banks are full from the first step on, as they are behind
many pictures: one that still fills would seem to grow with the pictures for ever. The tables of pictures that a
training keeps are counted in closed form. How far this is from the truth: benchmarks/results/speed.md.
"""

import contextlib
import math
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from components.backbones.extractor import Backbone
from components.backbones.runtime import graph_of
from components.core.artefacts import code_hash, read_json, values_hash, versions, write_json
from components.core.cache import cache_folder
from components.detectors.catalogue import create
from components.detectors.contract import Detector, Labelled, OnePass, Optimise, TrainingData
from components.detectors.parts.coreset import Coreset
from components.training.checkpoint import Checkpoint, learned
from components.training.loop import Loop, learning
from components.training.select import BATCH

ROUNDS = ((6, 2), (12, 2), (12, 4))  # pictures and batch of each sounding
HALF = 2  # bytes of a feature in the store
MIB = 2**20
# By benchmarks/speed/memory.py: what operations and the allocator hold beside the tensors, and what export loads.
FACTOR, TRAINING_MIB, GRAPH_MIB = 1.3, 100.0, 150.0
EXPORT_MIB, EXPORT_COPIES = 100.0, 5.0
PIXEL = 40.0  # bytes of each pixel of the largest picture, while it is decoded, made floats and shrunk
KINDS = 64  # of invented feature vectors
MADE, CHECK = "made", "check"  # before the first phase; scoring what chooses


class Living(TorchDispatchMode):
    """Counts the bytes of tensors that are made while it is entered and still live; ``peak`` is the most of them."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, Tensor):
                self._seen(leaf)
        return found

    def _seen(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known or not size:
            return
        self._known[key] = weakref.ref(storage, lambda _: self._gone(key, size))
        self.now += size
        self.peak = max(self.peak, self.now)

    def _gone(self, key: int, size: int) -> None:
        if self._known.pop(key, None) is not None:
            self.now -= size

    def since(self) -> int:
        """The peak since this was asked before."""
        peak, self.peak = self.peak, self.now
        return peak


@dataclass
class Kept:
    """Bytes per picture of what a training keeps of its pictures: in memory, and mapped from the feature store.

    *backbones* are the keys of those whose features are asked for.
    """

    memory: float = 0.0
    mapped: float = 0.0
    backbones: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Noise:
    """A table of *count* rows of noise, of shapes (B, C, ...).

    What lies along C is one of KINDS with a little noise, as in real pictures: a coreset of pure noise never ends.
    """

    count: int
    shapes: tuple[tuple[int, ...], ...]
    alone: bool = False  # one tensor for each draw, not a list of them

    def __len__(self) -> int:
        return self.count

    def take(self, indices: Sequence[int]) -> Any:
        with _disable_current_modes():  # what inventing takes is no part of what is counted
            made = [self._drawn(len(indices), shape) for shape in self.shapes]
        drawn = [one.clone() for one in made]
        return drawn[0] if self.alone else drawn

    def _drawn(self, rows: int, shape: tuple[int, ...]) -> Tensor:
        if self.alone:
            return torch.rand(rows, *shape)
        channels, *places = shape
        kinds = torch.rand(KINDS, channels)[torch.randint(KINDS, (rows, *places))]
        return kinds.movedim(-1, 1).contiguous() + 1e-3 * torch.rand(rows, *shape)


@dataclass(frozen=True)
class Invented:
    """``detectors.contract.TrainingData`` of *count* pictures of noise; ``kept`` notes what real ones would need."""

    count: int
    times: float = 1.0  # rows of this for each picture
    kept: Kept = field(default_factory=Kept)

    def features(self, backbone: Backbone) -> Noise:
        self.kept.backbones.append(backbone.key())
        shapes = tuple((c, g, g) for c, g in zip(backbone.channels, backbone.grids, strict=True))
        self.kept.mapped += self.times * HALF * sum(c * g * g for c, g, _ in shapes)
        return Noise(self.count, shapes)

    def pixels(self, size: int) -> Noise:
        self.kept.memory += self.times * 3 * size * size
        return Noise(self.count, ((3, size, size),), alone=True)

    def clips(self, size: int, frames: int) -> Noise:
        self.kept.memory += self.times * 3 * size * size
        return Noise(self.count, ((frames, 3, size, size),), alone=True)

    def anomalies(self, strategies: tuple[str, ...], size: int, copies: int = 1) -> "Invented":  # noqa: ARG002
        self.kept.memory += copies * 4 * size * size  # as drawn, and the masks
        return Invented(copies * self.count, copies * self.times, self.kept)

    def clean(self, size: int) -> Noise:
        self.kept.memory += 3 * size * size
        return Noise(self.count, ((3, size, size),), alone=True)

    def before(self, backbone: Backbone) -> Noise:
        return self.features(backbone)

    def masks(self, side: int) -> Noise:
        return Noise(self.count, ((1, side, side),), alone=True)

    def natural(self, size: int, count: int) -> Noise:
        self.kept.memory += 3 * size * size * count / self.count
        return Noise(count, ((3, size, size),), alone=True)

    def labelled(self, size: int) -> Labelled | None:  # noqa: ARG002
        return None


class Sounding(Loop):
    """One small step of each phase, on *batch* rows of *pictures*; ``peaks`` are bytes by phase, ``batches`` what each
    will have, ``held`` the pictures that it has in memory at once at most, where it says so."""

    def __init__(self, detector: Detector, pictures: int, batch: int, folder: Path, living: Living) -> None:
        fabric = Fabric(accelerator="cpu", devices=1)
        super().__init__(detector, lambda _: 0.5, Checkpoint(folder, ""), 0, float("inf"), fabric)
        self.pictures, self.batch, self.living = pictures, batch, living
        self.peaks: dict[str, int] = {}
        self.batches: dict[str, int] = {}
        self.held: dict[str, int] = {}
        self.epochs: dict[str, int] = {}
        self.steps: dict[str, float] = {}
        self.shares: dict[str, float] = {}
        self.once: dict[str, float] = {}

    def note(self, name: str, batch: int) -> None:
        """Put the peak since the last note to the phase *name*, which will have batches of *batch*."""
        self.peaks[name] = max(self.peaks.get(name, 0), self.living.since())
        self.batches[name] = batch

    def _save(self, extra: Any = None) -> None:
        """Nothing is kept of it."""

    def _fit(self, phase: OnePass) -> None:
        for coreset in _coresets(self.detector):
            coreset.fill()
        with torch.inference_mode():
            passed = busy(lambda: self._passed(phase))
            self.once[phase.name] = busy(phase.finish)
        self._clocked(phase, passed / math.ceil(len(phase.table) / self.batch), 1)
        if phase.held is not None:
            self.held[phase.name] = phase.held
        self.note(phase.name, phase.batch_size)

    def _passed(self, phase: OnePass) -> None:
        for start in range(0, len(phase.table), self.batch):
            phase.update(phase.table.take(range(start, min(start + self.batch, len(phase.table)))))

    def _clocked(self, phase: OnePass | Optimise, step: float, epochs: int) -> None:
        """A *step* of the phase took so many seconds."""
        self.steps[phase.name], self.epochs[phase.name] = step, epochs
        self.shares[phase.name] = len(phase.table) / self.pictures

    def _optimise(self, phase: Optimise) -> None:
        optimisers, average = self._optimisers(phase), self._average(phase)
        rows = [i % len(phase.table) for i in range(self.batch)]
        with learning(self.detector, phase):
            self._step(phase, optimisers, average, rows, 0.0)
            with _disable_current_modes():  # the first step warms up, and counting takes its time
                step = busy(lambda: self._step(phase, optimisers, average, rows, 0.0))
        self._clocked(phase, step, phase.epochs)
        self.note(phase.name, phase.batch_size)
        if phase.select:  # the best epoch is held from now on
            self.best = (0.5, {k: v.detach().clone() for k, v in learned(self.detector).items()})
        self.note(f"{phase.name}, kept", phase.batch_size)
        self.history.append({"phase": phase.name, "epoch": 0, "synthetic_auroc": 0.5})


def busy(call: Callable[[], Any]) -> float:
    """Seconds that *call* takes where nothing else runs: those of the processor, shared by torch's threads."""
    started = time.process_time()
    call()
    return (time.process_time() - started) / torch.get_num_threads()


def _coresets(detector: Detector) -> list[Coreset]:
    return [part for part in detector.modules() if isinstance(part, Coreset)]


class Sounded(NamedTuple):
    """What one round found by phase: bytes, batches, pictures held, epochs, seconds of a step and once, rows for each
    picture; and what tables would hold."""

    peaks: dict[str, int]
    batches: dict[str, int]
    held: dict[str, int]
    epochs: dict[str, int]
    steps: dict[str, float]
    shares: dict[str, float]
    once: dict[str, float]
    kept: Kept
    checked: Kept
    weights: int
    banks: int


def sound(name: str, settings: Any, pictures: int, batch: int) -> Sounded:
    """One round: each phase of detector *name* on noise, in batches of *batch*."""
    with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng(devices=[]), Living() as living:
        torch.manual_seed(0)
        detector, data, check = create(name, settings, pretrained=False), Invented(pictures), Invented(batch)
        loop = Sounding(detector, pictures, batch, Path(folder), living)
        loop.note(MADE, 0)
        loop.run(data)
        with torch.inference_mode():
            detector.score(detector.inputs(check).take(range(batch)), (detector.size, detector.size))
        loop.note(CHECK, BATCH)
        weights = sum(value.nbytes for value in detector.state_dict().values())
        banks = sum(coreset.bank.nbytes for coreset in _coresets(detector))
        phases = (loop.peaks, loop.batches, loop.held, loop.epochs, loop.steps, loop.shares, loop.once)
        return Sounded(*phases, data.kept, check.kept, weights, banks)


@dataclass(frozen=True)
class Memory:
    """What a training needs, in bytes by phase: ``fixed``, for each picture of a batch (``row``), for each picture that
    is learned from (``picture``), of which a phase has no more than ``held`` at once.

    ``seconds`` of a picture in each of its ``epochs``, of which there are as many as it takes to draw ``draws``, and
    ``once``.
    """

    fixed: dict[str, float]
    row: dict[str, float]
    picture: dict[str, float]
    batches: dict[str, int]
    held: dict[str, int]
    epochs: dict[str, int]
    draws: dict[str, int]
    seconds: dict[str, float]
    once: dict[str, float]
    kept: Kept
    checked: Kept
    weights: int
    banks: int  # a full one is copied when it is thinned, which no small round sees

    def tensors(self, phase: str, pictures: int) -> float:
        """Bytes of tensors at the peak of *phase*."""
        rows = self.batches[phase] if phase == CHECK else min(self.batches[phase], pictures)
        held = min(self.held.get(phase, pictures), pictures)
        return self.fixed[phase] + rows * self.row[phase] + held * self.picture[phase] + self.banks

    def widest(self, pictures: int) -> str:
        """The phase that takes most."""
        return max(self.fixed, key=lambda phase: self.tensors(phase, pictures))

    def training(self, pictures: int, checked: int, store: Path | None = None, pixels: int = 0) -> float:
        """MiB that the training takes on top of a process in which everything is loaded.

        *store* is the folder of features, which may hold the graphs of the backbones; one that lacks has to be made.
        *pixels* are those of the largest picture.
        """
        tables = pictures * self.kept.memory + checked * self.checked.memory
        graphs = [graph_of(store, key) for key in self.kept.backbones] if store else []
        fixed = TRAINING_MIB + (0.0 if all(graph.exists() for graph in graphs) else GRAPH_MIB)
        return fixed + (FACTOR * self.tensors(self.widest(pictures), pictures) + tables + PIXEL * pixels) / MIB

    def mapped(self, pictures: int, checked: int) -> float:
        """MiB of the feature store that become resident; the system takes these back where others need them."""
        return (pictures * self.kept.mapped + checked * self.checked.mapped) / MIB

    def export(self) -> float:
        """MiB that the export takes on top, whose graph holds the weights several times."""
        return EXPORT_MIB + EXPORT_COPIES * self.weights / MIB

    def minutes(self, pictures: int) -> float:
        """About how long the phases take on this machine."""
        drawn = {p: math.ceil(draws / max(pictures, 1)) for p, draws in self.draws.items()}
        epochs = {p: max(least, drawn.get(p, 0)) for p, least in self.epochs.items()}
        return sum(pictures * epochs[p] * self.seconds[p] + self.once.get(p, 0.0) for p in epochs) / 60


def measured(name: str, settings: Any) -> Memory:
    """What detector *name* needs with *settings*; measured once for these, in seconds, and kept in the cache folder.

    Raises whatever the method raises for settings that it cannot work with.
    """
    asked = values_hash([name, repr(settings), ROUNDS, code_hash(), versions()])
    kept = cache_folder() / "memory" / f"{asked[:24]}.json"
    if kept.exists():
        values: dict[str, Any] = read_json(kept)
        return Memory(**values | {key: Kept(**values[key]) for key in ("kept", "checked")})
    found = fitted([sound(name, settings, *given) for given in ROUNDS], getattr(settings, "epochs", 1))
    with contextlib.suppress(OSError):  # a cache that cannot be written costs these seconds again
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, found)
    return found


def fitted(rounds: Sequence[Sounded], least: int = 1) -> Memory:
    """The plane through three rounds (``ROUNDS``), phase by phase; nothing shrinks with more pictures.

    A phase that has fewer epochs with more pictures draws a number of them; it has *least* epochs all the same.
    """
    few, many, wide = rounds
    (n, b), (more, _), (_, wider) = ROUNDS
    row = {p: max(0.0, (wide.peaks[p] - many.peaks[p]) / (wider - b)) for p in few.peaks}
    picture = {p: max(0.0, (many.peaks[p] - few.peaks[p]) / (more - n)) for p in few.peaks}
    fixed = {p: max(0.0, peak - b * row[p] - n * picture[p]) for p, peak in few.peaks.items()}
    draws = {p: n * epochs for p, epochs in few.epochs.items() if epochs > many.epochs[p]}
    epochs = {p: least if p in draws else found for p, found in many.epochs.items()}
    phases = (fixed, row, picture, few.batches, few.held, epochs, draws, _seconds(many, wide), wide.once)
    return Memory(*phases, few.kept, few.checked, few.weights, few.banks)


def _seconds(small: Sounded, wide: Sounded) -> dict[str, float]:
    """Of a picture in one epoch, in batches as they will be: what a step takes for itself is shared by its rows."""
    (_, b), (_, wider) = ROUNDS[1:]
    found = {}
    for phase, step in wide.steps.items():
        row = min(max(0.0, (step - small.steps[phase]) / (wider - b)), step / wider)
        found[phase] = wide.shares[phase] * (row + (step - wider * row) / max(wide.batches[phase], wider))
    return found


_: type[TrainingData] = Invented  # the type checker's proof
