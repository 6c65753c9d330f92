"""The knobs of what a plant hears: outputs, parts of several views, the handshake. Secrets are never among them."""

from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit

from components.core.checks import check_budget, check_name
from components.core.errors import SettingsError

SCHEMES = {"mqtt": ("mqtt", "mqtts"), "webhook": ("http", "https"), "opcua": ("opc.tcp",)}


@dataclass(frozen=True)
class OutputSettings:
    """One place that hears of decisions. Variables name what the environment holds; none is read where it is empty."""

    kind: Literal["mqtt", "webhook", "opcua"]
    url: str  # mqtt://host:1883, mqtts://host:8883, https://host/path, opc.tcp://127.0.0.1:4840
    topic: str = "loupe"  # what the topics of mqtt begin with
    send: tuple[Literal["picture", "part"], ...] = ("picture", "part")
    secret_variable: str = ""  # webhook: the key of the signature
    user_variable: str = ""  # mqtt and opcua
    password_variable: str = ""
    timeout_s: float = 10.0
    attempts: int = 5  # of a message that is refused; one whose receiver is out of reach waits, however long
    longest_wait_s: float = 60.0  # between two tries

    def __post_init__(self) -> None:
        wanted = SCHEMES[self.kind]
        if urlsplit(self.url).scheme not in wanted or not urlsplit(self.url).hostname:
            raise SettingsError(f"service.line.outputs: url of {self.kind} is {self.url!r}; begin with {wanted[0]}://")
        if not self.topic or set(self.topic) & set("+#\0") or self.topic.startswith("$"):
            raise SettingsError(f"service.line.outputs: topic is {self.topic!r}; give one such as plant/line-1")
        check_budget("service.line.outputs: timeout_s", self.timeout_s)
        check_budget("service.line.outputs: longest_wait_s", self.longest_wait_s)
        if self.attempts < 1:
            raise SettingsError(f"service.line.outputs: attempts is {self.attempts}; give 1 or more")


@dataclass(frozen=True)
class PartSettings:
    """Pictures of several sources that show one part, joined by the part's id; without *views* there are none.

    The part is anomalous where *vote* of its views together are; 1: where the worst one is. A part whose pictures are
    not all there *timeout_s* after the first is an error.
    """

    views: tuple[str, ...] = ()
    vote: int = 1
    timeout_s: float = 10.0
    waiting: int = 1000  # parts whose pictures are not all there; beyond it the oldest is an error
    calibration: str = ""  # a JSON file of p-values of good parts, one list a part; "": a bound that needs none

    def __post_init__(self) -> None:
        if len(set(self.views)) < len(self.views):
            raise SettingsError("service.line.part.views names a source twice; name each once")
        if self.views and not 1 <= self.vote <= len(self.views):
            raise SettingsError(f"service.line.part.vote is {self.vote}; give 1 to {len(self.views)}, the views")
        if self.waiting < 1:
            raise SettingsError(f"service.line.part.waiting is {self.waiting}; give 1 or more")
        check_budget("service.line.part.timeout_s", self.timeout_s)


@dataclass(frozen=True)
class RecipeSettings:
    """What a recipe index stands for: the source whose next picture is meant, the group that decides, the model."""

    source: str
    group: str | None = None
    model: str | None = None  # another one in service is an error; None: whichever serves


@dataclass(frozen=True)
class LineSettings:
    """*recipes* by their index switch the handshake on; *timeout_s* is how long a trigger waits for its decision."""

    outputs: dict[str, OutputSettings] = field(default_factory=dict)
    part: PartSettings = PartSettings()
    recipes: dict[int, RecipeSettings] = field(default_factory=dict)
    timeout_s: float = 10.0
    most_mb: float = 500.0  # of messages on disk that wait; beyond it the oldest go and are counted

    def __post_init__(self) -> None:
        check_budget("service.line.timeout_s", self.timeout_s)
        check_budget("service.line.most_mb", self.most_mb)
        for name in self.outputs:
            check_name(name, "service.line.outputs")
        if bad := [index for index in self.recipes if not isinstance(index, int) or index < 0]:
            raise SettingsError(f"service.line.recipes holds {bad[0]!r}; an index is a whole number from 0 on")
        if sum(one.kind == "opcua" for one in self.outputs.values()) > 1:
            raise SettingsError("service.line.outputs holds two of opcua; one server has room for all clients")
        if self.recipes and not any(one.kind in ("opcua", "mqtt") for one in self.outputs.values()):
            raise SettingsError("service.line.recipes: no controller can reach them; add an output opcua or mqtt")
