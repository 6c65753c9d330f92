"""A training followed in MLflow while it runs: its curves grow there, epoch by epoch.

The training itself knows nothing of it: it writes its history to a file, line by line, and a thread of the flow reads
that. A registry that does not answer costs the curves and no training.
"""

import json
import logging
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.core.errors import RegistryError
from components.pipeline.stages import Stages
from components.registry.curves import points_of
from components.registry.mlflow import Registry
from components.registry.register import training_of

log = logging.getLogger("loupe")
SECONDS = 2.0


@contextmanager
def followed(stages: Stages, detector: str, seconds: float = SECONDS) -> Iterator[Path]:
    """The file that a training of *detector* is to add its history to; a run of MLflow follows it."""
    with tempfile.TemporaryDirectory() as scratch:
        file, ended = Path(scratch) / "curves", threading.Event()
        file.touch()
        follower = Follower(stages, detector, file)
        thread = threading.Thread(target=follower.watch, args=(ended, seconds), name="curves", daemon=True)
        thread.start()
        status = "FAILED"
        try:
            yield file
            status = "FINISHED"
        finally:
            ended.set()
            thread.join()
            follower.end(status)


class Follower:
    """Reads what is added to *file*; the run begins with the first record: a model that is there already has none."""

    def __init__(self, stages: Stages, detector: str, file: Path) -> None:
        self.stages, self.detector, self.file = stages, detector, file
        self.registry: Registry | None = None
        self.run, self.read, self.silent = "", 0, False

    def watch(self, ended: threading.Event, seconds: float) -> None:
        while not ended.wait(seconds):
            self.look()

    def look(self) -> None:
        """Draw what is new."""
        with self.file.open("rb") as stream:
            stream.seek(self.read)
            whole, found, _ = stream.read().rpartition(b"\n")
        if not found or self.silent:
            return
        self.read += len(whole) + 1
        records = [json.loads(line) for line in whole.splitlines()]
        try:
            registry, run = self._begun()
            registry.draw(run, [point for step, record in records for point in points_of(step, record)])
        except RegistryError as error:
            self._give_up(error)

    def end(self, status: str) -> None:
        self.look()
        if self.run and self.registry and not self.silent:
            try:
                self.registry.end(self.run, status)
            except RegistryError as error:
                self._give_up(error)

    def _begun(self) -> tuple[Registry, str]:
        if self.registry is None:
            self.registry = Registry(self.stages.params.registry)
        if not self.run:
            place = training_of(self.registry, self.stages.of(self.detector))
            self.run = self.registry.begin(self.stages.view, {"detector": self.detector}, place)
        return self.registry, self.run

    def _give_up(self, error: RegistryError) -> None:
        self.silent = True
        log.warning("%s: its curves are not followed: %s", self.detector, error)
