"""Which bundle is served: a folder, or the registry's champion, watched and swapped without dropping a request."""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from components.core.errors import BundleError
from components.core.runtime import OWN, Runs, return_freed_memory
from components.decision.bundle import Bundle
from components.scorelog.whose import of_product

log = logging.getLogger("loupe")
AGAIN_S = 30.0  # until a version that cannot be opened is brought and tried again
SETTLED_S = 5.0  # behind a swap: what the old model was answering is answered by then


class Registered(Protocol):
    """What of the registry is needed here."""

    def champion(self, name: str) -> str | None: ...

    def challenger(self, name: str) -> str | None: ...

    def fetch(self, name: str, version: str, out: Path) -> Path: ...


@dataclass(frozen=True)
class Served:
    """An opened, warmed bundle; *version* is the registry's, None for a folder."""

    bundle: Bundle
    name: str
    version: str | None


class Champion:
    """Holds the served bundle; ``watch`` polls the registry in a thread."""

    def __init__(
        self, name: str, registry: Registered | None, cache: Path, threads: int | None = None, runs: Runs = OWN
    ) -> None:
        self.name, self.registry, self.cache, self.threads, self.runs = name, registry, cache, threads, runs
        self._stop, self._turn = threading.Event(), threading.Lock()
        self._failed, self._until = "", 0.0  # the version that could not be opened last, and when it is tried again
        self._served = self._open()
        self.reloads = 0

    @property
    def served(self) -> Served:
        return self._served

    @property
    def registered(self) -> str | None:
        """The name in the registry; None for a folder."""
        return self.name if self.registry is not None else None

    def current(self) -> Bundle:
        return self._served.bundle

    def concerns(self, record: Mapping[str, Any]) -> bool:
        """Whether a record of the score log is of this product, and not of another one in the same store."""
        known = self._served.bundle.manifest
        return of_product(record, known.version, self.registered, known.dataset)

    def _open(self) -> Served:
        if self.registry is None:
            return Served(warmed(Path(self.name), self.threads, self.runs), Path(self.name).resolve().name, None)
        version = self.registry.champion(self.name)
        if version is None:
            raise BundleError(f"{self.name}: the registry has no champion of this name; run `loupe models {self.name}`")
        return self._fetched(version)

    def _fetched(self, version: str) -> Served:
        folder = self.registry.fetch(self.name, version, self.cache / self.name / version)  # type: ignore[union-attr]
        return Served(warmed(folder, self.threads, self.runs), self.name, version)

    def refresh(self) -> bool:
        """Swap to the registry's champion if it has moved; one that cannot be opened leaves the old one serving."""
        if self.registry is None:
            return False
        with self._turn:  # the page that moved the champion asks at the same time as the watch
            return self._followed(self.registry)

    def _followed(self, registry: Registered) -> bool:
        version = ""
        try:
            version = registry.champion(self.name) or ""
            if version in ("", self._served.version) or (version == self._failed and time.monotonic() < self._until):
                return False
            fetched = self._fetched(version)
        except Exception as error:
            log.error("%s: the champion stays version %s: %s", self.name, self._served.version, error)
            self._failed, self._until = version, time.monotonic() + AGAIN_S
            return False
        self._swap(fetched)
        log.info("%s: now serving version %s", self.name, self._served.version)
        return True

    def renew(self) -> None:
        """Open what is served again, after a change on purpose. Raises BundleError; the old one serves on then."""
        if self.registry is None:
            self._swap(self._open())
        else:
            self.refresh()

    def _swap(self, served: Served) -> None:
        self._served = served
        self.reloads += 1
        give_back_soon()

    def watch(self, every: float) -> None:
        """Poll in the background until ``stop``."""

        def poll() -> None:
            while not self._stop.wait(every):
                self.refresh()

        if self.registry is not None:
            threading.Thread(target=poll, name="champion", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def identity(self) -> dict[str, Any]:
        """What ``GET /v1/models/current`` says."""
        bundle = self._served.bundle
        known = {k: getattr(bundle.manifest, k) for k in ("detector", "dataset", "groups", "data")}
        point = bundle.calibration
        calibration = {
            "alpha": point.alpha,
            "threshold": point.threshold,
            "n": point.n,
            "false_alarm_interval": list(point.interval),
        }
        return {
            "name": self.name if self.registry else self._served.name,
            "version": self._served.version,
            "model_version": bundle.version,
            **known,
            "calibration": calibration,
        }


def give_back_soon() -> None:
    """Return the memory of a model that has just been replaced, once nothing is answered by it any more."""
    timer = threading.Timer(SETTLED_S, return_freed_memory)
    timer.daemon = True
    timer.start()


def warmed(folder: Path, threads: int | None, runs: Runs = OWN) -> Bundle:
    """The bundle in *folder*, opened and run once."""
    bundle = Bundle.open(folder, threads, runs)
    for narrow in (False, True):  # the first run of a session allocates; no client waits for it
        bundle.score([bundle.blank], narrow)
    return bundle
