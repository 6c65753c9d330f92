"""The pictures of one part, gathered by its id: one decision when all are there, an error when one stays away.

What waits is noted on disk, so that a part whose pictures were cut off by a restart is an error, and not forgotten.
"""

import hashlib
import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.core.artefacts import write_json
from components.core.errors import LoupeError
from components.core.records import TRACE_COLUMNS
from components.decision.parts import Rule
from components.service.line.messages import ERROR, PART, Message
from components.service.line.settings import PartSettings

log = logging.getLogger("loupe")
RESTARTED = "the service was started again before all its pictures were there; inspect the part again"
LOOK = 0.2  # seconds between two looks for parts that are late
Decide = Callable[[], Rule]  # the rule of the model in service; raises CalibrationError where it cannot decide


class Views:
    """*told* is given the message of each part, once. Safe for several threads."""

    def __init__(
        self,
        settings: PartSettings,
        kept: Path,
        rule: Decide,
        told: Callable[[Message], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings, self.kept, self.rule, self.told, self.clock = settings, kept, rule, told, clock
        self._parts: dict[str, dict[str, Message]] = {}
        self._begun: dict[str, float] = {}
        self._lock = threading.Lock()
        self._ending = threading.Event()

    def start(self) -> None:
        """Tell of the parts that an earlier service left open, and look for late ones from now on."""
        for part, views in self._left().items():
            self.told(self._failed(part, views, RESTARTED))
        self._note()
        threading.Thread(target=self._look, name="views", daemon=True).start()

    def _left(self) -> dict[str, dict[str, Message]]:
        try:
            return dict(json.loads(self.kept.read_text()))
        except (OSError, ValueError):
            return {}

    def add(self, message: Message) -> Message | None:
        """A picture of a view: the decision where it is the last one of its part. Pictures without a part are none.

        A second picture of one view stands for the first while the part is open.
        """
        part, source = message.get("part"), message["source"]
        if not part or source not in self.settings.views:
            return None
        with self._lock:
            views = self._parts.setdefault(part, {})
            self._begun.setdefault(part, self.clock())
            views[source] = message
            whole = len(views) == len(self.settings.views)
            if whole:
                self._parts.pop(part), self._begun.pop(part)
            crowded = self._oldest() if len(self._parts) > self.settings.waiting else {}
            self._note()
        self._fail(crowded, f"more than {self.settings.waiting} parts wait for pictures")
        if not whole:
            return None
        decided = self._decided(part, views)
        self.told(decided)
        return decided

    def _oldest(self) -> dict[str, dict[str, Message]]:
        part = min(self._begun, key=lambda one: self._begun[one])
        self._begun.pop(part)
        return {part: self._parts.pop(part)}

    def _decided(self, part: str, views: Mapping[str, Message]) -> Message:
        try:
            p, decision = self.rule().decide({name: float(one["p_value"]) for name, one in views.items()})
        except LoupeError as error:
            return self._failed(part, views, str(error))
        return {**self._base(part, views), "decision": decision, "p_value": p, "reason": None}

    def _failed(self, part: str, views: Mapping[str, Message], reason: str) -> Message:
        return {**self._base(part, views), "decision": ERROR, "p_value": None, "reason": reason}

    def _base(self, part: str, views: Mapping[str, Message]) -> Message:
        """The id follows from those of the pictures: two services that see the same ones say the same."""
        ordered = [views[name] for name in self.settings.views if name in views]
        ids = "\n".join(one["id"] for one in ordered)
        trace = {name: next((one[name] for one in ordered if one.get(name)), None) for name in TRACE_COLUMNS}
        worst = min(ordered, key=lambda one: one["p_value"])
        return {
            "id": hashlib.sha256(ids.encode()).hexdigest()[:32],
            "kind": PART,
            "at": datetime.now(UTC).isoformat(),
            "score": None,
            "threshold": None,
            "source": worst["source"],
            "image_id": worst["image_id"],
            "group": None,
            "regions": worst["regions"],
            **trace,
            "part": part,
            "station": trace["station"] if len({one.get("station") for one in ordered}) == 1 else None,
            "model": worst["model"],
            "views": [_view(one) for one in ordered],
        }

    def _look(self) -> None:
        while not self._ending.wait(LOOK):
            try:
                self.look()
            except Exception as error:  # the thread must live, or no part would ever be late
                log.error("late parts are looked for again: %s: %s", type(error).__name__, error)

    def look(self) -> None:
        """Tell of the parts that have waited too long."""
        with self._lock:
            late = [p for p, at in self._begun.items() if self.clock() - at > self.settings.timeout_s]
            found = {part: self._parts.pop(part) for part in late}
            for part in late:
                self._begun.pop(part)
            if late:
                self._note()
        self._fail(found, "")

    def _fail(self, parts: Mapping[str, Mapping[str, Message]], reason: str) -> None:
        for part, views in parts.items():
            away = " and ".join(name for name in self.settings.views if name not in views)
            said = reason or f"no picture of {away} within {self.settings.timeout_s:g} s of the first"
            self.told(self._failed(part, views, said))

    def _note(self) -> None:
        try:
            write_json(self.kept, self._parts)
        except LoupeError as error:
            log.error("parts that wait are not noted: %s", error)

    def stop(self) -> None:
        """Look no more; what is open is told by the next service."""
        self._ending.set()


def _view(message: Message) -> dict[str, Any]:
    return {k: message.get(k) for k in ("id", "source", "image_id", "decision", "p_value", "score", "station")}
