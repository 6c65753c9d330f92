"""The handshake in time: the cell of ``handshake`` with its recipes, its time limit, and those who listen to it."""

import itertools
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from components.core.errors import RequestError
from components.core.records import TRACE_COLUMNS
from components.service.line import handshake
from components.service.line.handshake import Cell, State
from components.service.line.messages import ERROR, NORMAL, PART, Message
from components.service.line.settings import LineSettings, RecipeSettings
from components.service.trace import checked

Outputs = Mapping[str, bool | str]
LEVELS = ("trigger", "acknowledge")
TEXTS = ("part", "lot", "operator")  # what a controller may tell with a trigger


@dataclass
class Cycle:
    """One trigger: its number, its recipe, and what is known of its part."""

    number: int
    recipe: RecipeSettings
    trace: dict[str, str | None]
    given: bool  # whether the controller told the part


class Arrival(NamedTuple):
    """What a picture that arrives during a cycle takes from it."""

    cycle: int
    group: str | None
    trace: dict[str, str | None]


class Handshake:
    """One cell. *problem* says why a recipe cannot be inspected now, "" where it can. Safe for several threads.

    Listeners are called in order and must not wait.
    """

    def __init__(self, settings: LineSettings, problem: Callable[[RecipeSettings], str]) -> None:
        self.settings, self.problem = settings, problem
        self.cell, self.recipe, self.texts = Cell(), 0, dict[str, str]()
        self.cycle: Cycle | None = None
        self.listeners: list[Callable[[Outputs], None]] = []
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None

    @property
    def outputs(self) -> Outputs:
        return self.cell.outputs

    def tell(self, listener: Callable[[Outputs], object]) -> None:
        """Tell *listener* the outputs as they are, between two changes of them."""
        with self._lock:
            listener(self.outputs)

    def open(self) -> None:
        self._moved(handshake.opened)

    def close(self) -> None:
        self._moved(handshake.closed)

    def put(self, given: Mapping[str, Any]) -> None:
        """What a controller sets: recipe, texts, levels, in this order whatever their order in *given*."""
        with self._lock:
            self.recipe = int(given.get("recipe", self.recipe))
            self.texts |= {name: str(given[name] or "").strip() for name in TEXTS if name in given}
            levels = {name: bool(given.get(name, getattr(self.cell, name))) for name in LEVELS}
            rises = levels["trigger"] and not self.cell.trigger and self.cell.state is State.READY
            problem = self._problem() if rises else ""
            if rises and not problem:
                self._begin()
            self._moved(lambda cell: handshake.signalled(cell, **levels, problem=problem))

    def _problem(self) -> str:
        recipe = self.settings.recipes.get(self.recipe)
        if recipe is None:
            return f"recipe {self.recipe} is not configured; known are {', '.join(map(str, self.settings.recipes))}"
        try:
            checked(dict(self.texts))
        except RequestError as error:
            return str(error)
        return self.problem(recipe)

    def _begin(self) -> None:
        trace: dict[str, str | None] = {name: self.texts.get(name) or None for name in TRACE_COLUMNS}
        trace["recipe"] = str(self.recipe)
        recipe = self.settings.recipes[self.recipe]
        self.cycle = Cycle(next(self._numbers), recipe, trace, bool(trace["part"]))
        self._timer = threading.Timer(self.settings.timeout_s, self._late, [self.cycle.number])
        self._timer.daemon = True
        self._timer.start()

    def _late(self, number: int) -> None:
        with self._lock:
            if self.cycle and self.cycle.number == number:
                seconds = f"{self.settings.timeout_s:g} s"
                self.fail(f"no decision within {seconds} of the trigger: did a picture of {self.sources} come?")

    @property
    def sources(self) -> str:
        """Where pictures of the present cycle come from, in words."""
        if self.cycle is None:
            return ""
        views = self.settings.part.views
        return " and ".join(views) if self.cycle.recipe.source in views else self.cycle.recipe.source

    def arrives(self, source: str, trace: Mapping[str, str | None]) -> Arrival | None:
        """A picture of *source* comes; None where it is none of this cycle: another source, another part."""
        with self._lock:
            cycle = self.cycle
            if cycle is None or self.cell.state is not State.BUSY or not self._mine(cycle, source):
                return None
            told = trace.get("part")
            if cycle.given and told not in (None, cycle.trace["part"]):
                return None
            if told and not cycle.given:
                cycle.trace["part"], cycle.given = told, True
            if cycle.recipe.source in self.settings.part.views and not cycle.trace["part"]:
                cycle.trace["part"] = f"part-{uuid.uuid4().hex[:12]}"  # by which its views find each other
            return Arrival(cycle.number, cycle.recipe.group, cycle.trace | {k: v for k, v in trace.items() if v})

    def _mine(self, cycle: Cycle, source: str) -> bool:
        views, wanted = self.settings.part.views, cycle.recipe.source
        return source in views if wanted in views else source == wanted

    def hears(self, message: Message, cycle: int | None) -> None:
        """A decision was made, of a picture that arrived in *cycle*, or of a part."""
        with self._lock:
            now = self.cycle
            if now is None or not self._answers(now, message, cycle):
                return
            if message["decision"] == ERROR:
                self.fail(str(message["reason"]), message["id"])
            else:
                self._moved(lambda cell: handshake.judged(cell, message["decision"] == NORMAL, message["id"]))

    def _answers(self, now: Cycle, message: Message, cycle: int | None) -> bool:
        if now.recipe.source in self.settings.part.views:
            return message["kind"] == PART and message["part"] == now.trace["part"]
        return message["kind"] != PART and cycle == now.number

    def fail(self, reason: str, identity: str = "") -> None:
        """There is no decision for the present trigger."""
        self._moved(lambda cell: handshake.failed(cell, reason, identity))

    def _moved(self, step: Callable[[Cell], Cell]) -> None:
        with self._lock:
            before, self.cell = self.cell, step(self.cell)
            if self.cell.state is not State.BUSY:
                self.cycle = None
                if self._timer:
                    self._timer.cancel()
                    self._timer = None
            if self.cell.outputs != before.outputs:
                for listener in self.listeners:
                    listener(self.cell.outputs)
