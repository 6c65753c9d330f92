"""One training as several processes, each with a GPU of its own where there are GPUs: started, watched and ended here.

Whoever calls for a training waits. The processes meet through a file in a folder that goes with them. When one fails or
is killed the others are ended at once, and what it said is what the training says.
"""

import io
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import torch

from components.core import errors, system
from components.core.artefacts import read_json, write_json
from components.core.boundary import boundary
from components.core.errors import LoupeError, SettingsError, StageError
from components.core.progress import CURVES, show_logs, write_curves
from components.core.runtime import SHARE
from components.core.settings import build, plain
from components.training.settings import TrainSettings

log = logging.getLogger("loupe")
MODULE = __name__  # what a process runs
PAUSE = 0.05  # seconds between two looks at the processes
GRACE = 0.5  # seconds in which who failed first comes to light: the others lose their connection to it


class Place(NamedTuple):
    """Which process this is, of how many, and the folder in which they meet."""

    rank: int
    of: int
    folder: Path


class Asked(NamedTuple):
    """What ``train`` is asked for, but for its settings."""

    name: str
    split: Path
    synthetic: Path
    data: Path
    out: Path
    seed: int
    folds: Sequence[Path] = ()
    checks: Path | None = None


def require_devices(name: str, settings: TrainSettings) -> None:
    """Raises SettingsError where *settings* want more GPUs than there are, or more than a batch has pictures."""
    count, there = settings.devices, torch.cuda.device_count()
    if count > 1 and there and count > there:
        raise SettingsError(f"train.devices is {count} and this machine has {there} GPU; give {there} at the most")
    least = smallest_batch(settings.method(name))
    if least is not None and count > least:
        raise SettingsError(
            f"train.devices is {count} and {name} learns from batches of {least} pictures; give {least} at the most, "
            f"or a larger batch_size of {name}"
        )


def smallest_batch(method: Any) -> int | None:
    """How many pictures a batch of the gradient phases of *method* has; None where it has no such setting."""
    found = getattr(method, "batch_size", None)
    return min(found) if isinstance(found, tuple) else found


def train_in(count: int, asked: Asked, settings: TrainSettings) -> None:
    """Run ``train`` of what is *asked* in *count* processes.

    Raises whatever error of Loupe a process ends with, StageError for any other end.
    """
    log.info("%s: trains in %d processes", asked.name, count)
    with tempfile.TemporaryDirectory(prefix="loupe-") as folder:
        followed = logging.getLogger(CURVES).handlers
        files = [handler.baseFilename for handler in followed if isinstance(handler, logging.FileHandler)]
        told = {"level": log.getEffectiveLevel(), "curves": files[:1], "count": count}
        write_json(Path(folder) / "asked.json", {"asked": _written(asked), "settings": plain(settings), **told})
        with _started(count, Path(folder)) as processes:
            _wait(processes, Path(folder), asked.name)


def _written(asked: Asked) -> dict[str, Any]:
    """Paths as texts, absolute ones."""
    return {key: _text(value) for key, value in asked._asdict().items()}


def _text(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.absolute())
    return [_text(one) for one in value] if isinstance(value, list | tuple) else value


@contextmanager
def _started(count: int, folder: Path) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """The processes; behind the block none of them is left."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(count):
            with (folder / f"{rank}.said").open("wb") as said:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", MODULE, str(folder), str(rank)],
                        env=_environment(count),
                        start_new_session=True,
                        preexec_fn=system.BEFORE,
                        stdin=subprocess.PIPE,  # never written to: it ends with this process, and they with it
                        stdout=subprocess.DEVNULL,
                        stderr=said if rank else None,
                    )
                )
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                system.end_tree(process)  # type: ignore[arg-type]
                process.wait()
            if process.stdin:
                process.stdin.close()


def _environment(count: int) -> dict[str, str]:
    """Of a process: where Loupe is, and its share of the cores."""
    cores = str(max(1, (os.cpu_count() or 1) // count))
    root = str(Path(__file__).parents[__name__.count(".")])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    return {"OMP_NUM_THREADS": cores, SHARE: cores, **os.environ, "PYTHONPATH": path}


def _wait(processes: Sequence["subprocess.Popen[bytes]"], folder: Path, name: str) -> None:
    while True:
        ends = [process.poll() for process in processes]
        if any(ends):
            time.sleep(GRACE)
            raise _failure([process.poll() for process in processes], folder, name)
        if all(end == 0 for end in ends):
            return
        time.sleep(PAUSE)


def _failure(ends: Sequence[int | None], folder: Path, name: str) -> LoupeError:
    """What the process that failed first says: one that was killed, else the first that could still speak."""
    said = sorted(folder.glob("*.failed.json"), key=lambda path: path.stat().st_mtime_ns)
    killed = [rank for rank, end in enumerate(ends) if end and not (folder / f"{rank}.failed.json").exists()]
    if killed:
        how = f"ended with status {ends[killed[0]]}"
        if (ends[killed[0]] or 0) < 0:
            how = f"was killed by signal {-(ends[killed[0]] or 0)}; where memory ran out, give fewer as train.devices"
        return StageError(f"{name}: process {killed[0] + 1} of {len(ends)} {how}")
    found = read_json(said[0])
    kind = getattr(errors, found["kind"], None)
    if isinstance(kind, type) and issubclass(kind, LoupeError):
        return kind(found["said"])
    return StageError(f"{name}: process {int(said[0].name.split('.')[0]) + 1} of {len(ends)}: {found['said']}")


def work(folder: Path, rank: int) -> int:
    """Be process *rank* of the training that is asked for in *folder*; the exit status."""
    from components.training.train import train

    asked = read_json(folder / "asked.json")
    show_logs(logging.WARNING if rank else asked["level"])
    for file in () if rank else asked["curves"]:
        write_curves(Path(file))
    try:
        settings = build(TrainSettings, asked["settings"], "train")
        train(**_read(asked["asked"]), settings=settings, place=Place(rank, asked["count"], folder))
    except BaseException as error:  # whatever it is, it is told in one sentence
        write_json(folder / f"{rank}.failed.json", {"kind": type(error).__name__, "said": _sentence(error)})
        return 1
    return 0


def _read(asked: dict[str, Any]) -> dict[str, Any]:
    paths = {key: Path(asked[key]) for key in ("split", "synthetic", "data", "out")}
    folds, checks = [Path(fold) for fold in asked["folds"]], asked["checks"]
    return {**asked, **paths, "folds": folds, "checks": Path(checks) if checks else None}


def _sentence(error: BaseException) -> str:
    """What the command line would say of it."""
    said = io.StringIO()
    try:
        with redirect_stderr(said), boundary(""):
            raise error
    except BaseException as ended:
        return said.getvalue().strip() or f"{type(ended).__name__} {ended}".strip()


@contextmanager
def joined(place: Place, seconds: float) -> Iterator[None]:
    """The processes of *place* together; who is waited for longer than *seconds* is given up."""
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    meeting = (place.folder / "meeting").absolute().as_uri()
    torch.distributed.init_process_group(
        backend, init_method=meeting, rank=place.rank, world_size=place.of, timeout=timedelta(seconds=seconds)
    )
    yield
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    system.end_with_parent()
    system.in_utf8(__name__)
    status = work(Path(sys.argv[1]), int(sys.argv[2]))
    sys.stderr.flush()
    os._exit(status)  # at once: a library that still waits for the others would hold it
