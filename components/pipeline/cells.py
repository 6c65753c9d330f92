"""One detector on one view as a cell that any worker can make: what it is given and what it makes lie in the store.

fan/files, fan/trees               folders: each file under its SHA-256
fan/cells/KEY/{asked,result}.json  the request, and the tree of what was made
fan/cells/KEY/{lease,state}.json   while a run works at it
fan/cells/KEY/RUN.log              the log of each run
"""

import json
import logging
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from components.core import system
from components.core.artefacts import atomic_dir, code_hash, file_hash, locked, tree_hash, values_hash, versions
from components.core.errors import DataError, ObjectError, StageError, StorageError
from components.core.settings import plain
from components.pipeline.isolated import run_stage
from components.pipeline.leases import BEATS, Beat, Owner, State, gone, repeated
from components.pipeline.params import load_params
from components.pipeline.stages import Stages
from components.storage import Store
from components.storage.trees import fetch, send

T = TypeVar("T")
log = logging.getLogger("loupe")
PREFIX = "fan"
INPUTS = ("split", "synthetic", "folds")  # below the folder of a view: what a detector is made from
LINES = 2000  # of a run's log, the last ones
PAUSES = (1.0, 5.0, 20.0)  # seconds between tries at a store that does not answer


@dataclass(frozen=True)
class Cell:
    """A detector on the view of *stages*, with the settings of *file*."""

    stages: Stages
    detector: str
    file: Path

    @property
    def name(self) -> str:
        return f"{self.stages.view}/{self.detector}"

    @property
    def folder(self) -> Path:
        return self.stages.of(self.detector)

    def inputs(self) -> list[Path]:
        return [path for name in INPUTS if (path := self.stages.folder / name).exists()]

    def key(self) -> str:
        """Of everything that the result depends on: the same cell is not made twice."""
        known = load_params(self.file)
        asked = [known.seed, plain(known.calibration), plain(known.evaluation), plain(known.export)]
        asked += [plain(known.view(self.stages.view)), plain(known.train.overrides(self.detector)), known.train.preset]
        asked += [known.train.precision, plain(known.train.moves), known.train.minutes, known.pipeline.minutes]
        asked += [code_hash(), versions(), *([path.name, tree_hash(path)] for path in self.inputs())]
        return values_hash([self.stages.view, self.detector, *asked])


def at(key: str) -> str:
    """Where in the store everything of one cell lies."""
    return f"{PREFIX}/cells/{key}"


def announce(cell: Cell, store: Store, sent: dict[Path, str] | None = None) -> str:
    """Put the request and what it needs into *store*; returns its key, which is all that a worker has to be told.

    *sent* are the trees of folders that are there already, and is added to.
    """
    key, sent = cell.key(), {} if sent is None else sent
    for path in cell.inputs():
        sent[path] = sent.get(path) or send(store, path, PREFIX)
    asked = {
        "view": cell.stages.view,
        "detector": cell.detector,
        "data_root": str(cell.stages.data_root),
        "params": yaml.safe_load(cell.file.read_text()),
        "inputs": {path.name: sent[path] for path in cell.inputs()},
        "program": code_hash(),
        "versions": versions(),
    }
    store.put(f"{at(key)}/asked.json", json.dumps(asked, sort_keys=True).encode())
    return key


def result_of(store: Store, key: str) -> str | None:
    """The tree that a run has made of the cell; None where none has yet."""
    found = f"{at(key)}/result.json"
    return str(json.loads(store.get(found))["tree"]) if store.exists(found) else None


def collect(cell: Cell, store: Store, tree: str) -> Path:
    """Put what a worker made into the place where it would be if it had been made here."""
    with atomic_dir(cell.folder) as scratch:
        fetch(store, tree, scratch, PREFIX)
    return cell.folder


def work(
    store: Store,
    key: str,
    owner: Owner,
    lapse: float,
    slot: Callable[[], AbstractContextManager[Any]],
    lost: Callable[[], None] = gone,
) -> str:
    """Make the cell of *key*, from where another run left it if one did; returns the tree of its result.

    *slot* is held while there is training. *lapse* is the time in seconds without a beat after which others take the
    cell for left. Raises LoupeError; the log is in the store then as well.
    """
    with _logged(store, f"{at(key)}/{owner.run}.log"), repeated(lapse / BEATS, Beat(store, at(key), owner, lost).beat):
        if done := _patiently(lambda: result_of(store, key)):
            return done
        asked = json.loads(_patiently(lambda: store.get(f"{at(key)}/asked.json")))
        _require_alike(asked)
        with _scratch() as folder:
            stages = _unpacked(store, asked, folder)
            _require_data(stages)
            state = State(store, at(key), stages.of(asked["detector"]))
            _patiently(state.take_up)
            _make(stages, asked["detector"], folder / "params.yaml", state, slot, lapse)
            tree = _patiently(lambda: send(store, state.folder, PREFIX))
        result = json.dumps({"tree": tree, "run": owner.run}).encode()
        _patiently(lambda: store.put(f"{at(key)}/result.json", result))
        _patiently(state.clear)
    return tree


def _make(
    stages: Stages,
    detector: str,
    file: Path,
    state: State,
    slot: Callable[[], AbstractContextManager[Any]],
    lapse: float,
) -> None:
    seconds = stages.params.train.stage_seconds * (1 + stages.folds)

    def train() -> None:
        with slot():
            run_stage("train", stages.view, detector, file, stages.data_root, seconds)

    steps: dict[str, Callable[[], Any]] = {
        "train": train,
        "calibrate": lambda: stages.calibrate(detector),
        "export": lambda: stages.export(detector),
        "evaluate": lambda: stages.evaluate(detector) if stages.can_evaluate() else None,
    }
    with repeated(lapse / BEATS, state.keep):
        for name, step in steps.items():
            if name not in state.done:
                step()
                state.done.append(name)


def _unpacked(store: Store, asked: dict[str, Any], folder: Path) -> Stages:
    """The stages of the cell in a folder of this run's own."""
    values = asked["params"] | {"artefacts": str(folder / "artefacts"), "store": store.address}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    stages = Stages(load_params(folder / "params.yaml"), asked["view"], Path(asked["data_root"]))
    for name, tree in asked["inputs"].items():
        _patiently(lambda tree=tree, name=name: fetch(store, tree, stages.folder / name, PREFIX))  # type: ignore[misc]
    stages.of(asked["detector"]).mkdir(parents=True, exist_ok=True)
    return stages


def _require_alike(asked: dict[str, Any]) -> None:
    if asked["program"] != code_hash():
        raise StageError("this worker has another version of Loupe than the flow that asks; install the same one")
    others = {name for name, version in versions().items() if asked["versions"].get(name) != version}
    if others:
        raise StageError(
            f"this worker has another version of {', '.join(sorted(others))} than the flow that asks; install the same"
        )


def _require_data(stages: Stages) -> None:
    """The pictures are those that the split was made of; what is not here comes by its pin, from DVC's remote."""
    from components.datasets.loading import read_split
    from components.datasets.versions import checkout

    for source in stages.sources:
        if not source.data.exists():
            with locked(stages.data_root / ".checkout.lock"):
                checkout(source.data.name, stages.data_root)
    for name, digest in read_split(stages.folder / "split")[["image_id", "sha256"]].itertuples(index=False):
        path = stages.data / name
        if not path.exists() or file_hash(path) != digest:
            raise DataError(f"{path}: is not the picture that the split names; bring this machine's data to the pin")


@contextmanager
def _scratch() -> Iterator[Path]:
    """A folder of this process; those of killed ones are cleared away."""
    root = Path(tempfile.gettempdir())
    for left in root.glob("loupe-cell-*"):
        number = left.name.rpartition("-")[2]
        if number.isdigit() and not system.lives(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="loupe-cell-", suffix=f"-{os.getpid()}", dir=root) as folder:
        yield Path(folder)


@contextmanager
def _logged(store: Store, key: str) -> Iterator[None]:
    """Keep the log of the block in the store, with the error that ended it."""
    lines: deque[str] = deque(maxlen=LINES)
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    log.addHandler(handler)
    try:
        yield
    except Exception as error:
        lines.append(f"{type(error).__name__}: {error}")
        raise
    finally:
        log.removeHandler(handler)
        with suppress(StorageError):
            store.put(key, "\n".join([*lines, ""]).encode())


def _patiently(call: Callable[[], T]) -> T:
    """*call*, tried again where the store does not answer."""
    for pause in PAUSES:
        try:
            return call()
        except ObjectError:
            raise
        except StorageError as error:
            log.warning("%s; tried again in %g s", error, pause)
            time.sleep(pause)
    return call()
