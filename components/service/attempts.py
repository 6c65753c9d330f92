"""How often the files were tried that the inbox could not score yet; kept in the store, so that it outlives a crash."""

import contextlib
import json
from typing import Any

from components.core.artefacts import mapping
from components.core.errors import LoupeError, StorageError
from components.storage import Store

WAITING, MARK = "inbox-waiting.json", "inbox-mark.json"
ENDED = "ProcessEnded"
Failure = dict[str, Any]  # sha256, attempts, type, reason


class Attempts:
    """Failures by file. An interrupted plan is *resumed* with care: each file is noted down before it is tried."""

    def __init__(self, store: Store, plan: str, resumed: bool) -> None:
        self.store, self.plan, self.resumed = store, plan, resumed
        self.known: dict[str, Failure] = _read(store, WAITING)
        mark = _read(store, MARK)
        mine = mark if mark.get("plan") == plan else {}
        self.killers: list[str] = [*mine.get("killers", []), *filter(None, [mine.get("now")])]
        self._marked = False

    def failed(self, key: str, sha256: str, error: Exception | None) -> Failure:
        """One more failure of this content; without an *error* the process itself ended."""
        earlier = self.known.get(key, {})
        times = earlier["attempts"] if earlier.get("sha256") == sha256 else 0
        kind = type(error).__name__ if error else ENDED
        return {"sha256": sha256, "attempts": times + 1, "type": kind, "reason": _reason(error)}

    def begin(self, key: str) -> None:
        """Note *key* down before it is tried, where something has failed before: if the process dies, it was this."""
        if self.resumed or key in self.known:
            self._mark(key)

    def end(self) -> None:
        """No file is being tried any more."""
        if self._marked:
            with contextlib.suppress(StorageError):
                self._mark(None)

    def _mark(self, key: str | None) -> None:
        self._marked = True
        note = {"plan": self.plan, "now": key, "killers": self.killers}
        self.store.put(MARK, json.dumps(note).encode())


def remember(store: Store, failed: dict[str, Failure], settled: set[str]) -> None:
    """Keep the failures of a plan, and forget the files that it *settled*. Doing it again changes nothing."""
    known = _read(store, WAITING)
    wanted = {key: value for key, value in (known | failed).items() if key not in settled}
    if wanted != known:
        store.put(WAITING, json.dumps(wanted, indent=1).encode())
    store.delete(MARK)


def _read(store: Store, key: str) -> dict[str, Any]:
    return mapping(store.get(key), key) if store.exists(key) else {}


def _reason(error: Exception | None) -> str:
    if error is None:
        return "the process ended while this file was scored; look for a lack of memory, or make the picture smaller"
    if isinstance(error, LoupeError):
        return str(error)
    return f"cannot be scored ({type(error).__name__}: {error}); export it again"
