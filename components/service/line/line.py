"""What the service says to the plant: messages of pictures and parts, and the handshake, in one place."""

import json
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from components.core.errors import LoupeError
from components.core.records import TRACE_COLUMNS
from components.decision.parts import Rule
from components.service.champion import Champion
from components.service.line.cell import Arrival, Handshake
from components.service.line.messages import Message, of_record
from components.service.line.outputs import Outputs
from components.service.line.settings import RecipeSettings
from components.service.line.views import Views
from components.service.recorder import Recorder
from components.service.settings import ServiceSettings

log = logging.getLogger("loupe")


class Line:
    """Raises SettingsError, and CalibrationError where parts could never be anomalous."""

    def __init__(self, champion: Champion, recorder: Recorder, settings: ServiceSettings) -> None:
        self.champion, self.recorder, self.settings = champion, recorder, settings.line
        folder = Path(settings.spool) / "line"
        self._rule: tuple[str, Rule] | None = None
        self._lock = threading.Lock()
        self.views: Views | None = None
        if self.settings.part.views:
            self.rule()
            folder.mkdir(parents=True, exist_ok=True)
            self.views = Views(self.settings.part, folder / "parts.json", self.rule, self._of_part)
        self.outputs = Outputs(self.settings.outputs, folder / "service", self.settings.most_mb)
        self.handshake = Handshake(self.settings, self.problem) if self.settings.recipes else None

    def start(self) -> None:
        """Begin to send; parts that were open when an earlier service ended are errors."""
        self.outputs.start(self.handshake)
        if self.views:
            self.views.start()
        if self.handshake:
            self.handshake.open()

    def stop(self, seconds: float) -> None:
        """Say that nothing can be inspected, and send what waits within *seconds*."""
        if self.handshake:
            self.handshake.close()
        if self.views:
            self.views.stop()
        self.outputs.stop(seconds)

    def rule(self) -> Rule:
        """How views become one decision under the model in service. Raises CalibrationError."""
        bundle, part = self.champion.served.bundle, self.settings.part
        with self._lock:
            identity = f"{bundle.version} {bundle.calibration.alpha}"
            if self._rule is None or self._rule[0] != identity:
                kept = Path(part.calibration) if part.calibration else None
                rule = Rule.of(len(part.views), part.vote, bundle.calibration.alpha, kept)
                rule.require_reachable(bundle.calibration.n)
                self._rule = identity, rule
            return self._rule[1]

    def problem(self, recipe: RecipeSettings) -> str:
        """Why this service cannot inspect by *recipe* now, "" where it can."""
        served = self.champion.served
        if recipe.model not in (None, served.name):
            return f"the recipe is of model {recipe.model}, and this service serves {served.name}"
        try:
            served.bundle.require_group(recipe.group)
        except LoupeError as error:
            return str(error)
        return ""

    def arrives(self, source: str, trace: Mapping[str, str | None]) -> Arrival | None:
        """What the trigger that waits for a picture of *source* says of it."""
        return self.handshake.arrives(source, trace) if self.handshake else None

    def tell(self, records: Sequence[Mapping[str, Any]], cycle: int | None = None) -> list[Message]:
        """Hand on what was recorded; returns the decisions of parts that are complete by it. Raises StorageError."""
        name = self.champion.served.name
        messages = [of_record(record, name) for record in records]
        self.outputs.append(messages)
        found = [self.views.add(one) for one in messages] if self.views else []
        if self.handshake:
            self._answer(messages, cycle)
        return [one for one in found if one]

    def _answer(self, messages: Sequence[Message], cycle: int | None) -> None:
        """Several pictures of one request are one answer: it is OK where all are."""
        if self.handshake and messages:
            self.handshake.hears(min(messages, key=lambda one: one["decision"] == "normal"), cycle)

    def _of_part(self, message: Message) -> None:
        """Recorded and queued before a controller hears of it: nothing is OK that is not written down."""
        try:
            self.recorder.append_part(_row(message, self.settings.part.views, self.champion.registered))
            self.outputs.append([message])
        except LoupeError as error:
            log.error("the decision on part %s is not recorded: %s", message["part"], error)
            if self.handshake:
                self.handshake.fail(f"the decision cannot be recorded: {error}", message["id"])
            raise
        if self.handshake:
            self.handshake.hears(message, None)


def _row(message: Message, views: Sequence[str], registered: str | None) -> dict[str, Any]:
    """A part's decision as a row of the table ``parts``."""
    return {
        "record_id": message["id"],
        "scored_at": message["at"],
        "source": "+".join(views),
        **{key: message[key] for key in ("decision", "p_value", "reason", *TRACE_COLUMNS)},
        "views": json.dumps(message["views"]),
        "model_version": message["model"]["version"],
        "registered": registered,
    }
