"""The knobs of the service and of the inbox."""

import re
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from components.core.checks import check_port
from components.core.errors import SettingsError
from components.core.runtime import Provider, Runs
from components.service.line.settings import LineSettings
from components.service.trace import check_pattern


@dataclass(frozen=True)
class ServiceSettings:
    """Limits and pace; tokens come from the environment or a file that it names (``core.secret``), never from here."""

    host: str = "127.0.0.1"
    port: int = 8000
    max_upload_mb: float = 20.0  # of a whole request
    max_pixels: int = 50_000_000
    max_files: int = 32
    body_seconds: float = 10.0  # a slower upload is refused
    batch: int = 8
    wait_ms: float = 0.0  # how long the first image of a batch waits for company; 0: it takes what waits already
    queue: int = 64  # images waiting; beyond it the answer is 503 with Retry-After
    threads: int | None = None  # of ONNX Runtime; all cores unless named
    provider: Provider | None = None  # what computes; None: what the bundle was held against its detector with
    unmeasured: Literal["warn", "refuse"] = "warn"  # where the bundle was measured with another provider
    reload_seconds: float = 2.0  # how often the registry is asked for its champion
    ship_seconds: float = 2.0
    drain_seconds: float = 10.0  # how long a shutdown waits for requests and the object store
    spool: str = "spool"
    segment_rows: int = 500
    recent: int = 1000  # records in memory; the pages read older ones from the store
    token_variable: str = "LOUPE_TOKEN"
    operator_variable: str = "LOUPE_OPERATOR_TOKEN"  # who sends this one may change the threshold and roll back
    users: str = ""  # a file that `loupe users` writes: who may read, label, change; LOUPE_USERS replaces it
    certificate: str = ""  # PEM, with what is between it and its authority; "": no TLS
    private_key: str = ""  # PEM; its password is in LOUPE_TLS_PASSWORD
    client_authority: str = ""  # PEM; only clients with a certificate of it are let in
    shadow: str = ""  # a bundle folder, or challenger: scores the same pictures behind the answers; "": nobody does
    shadow_queue: int = 32  # answered pictures that wait for it; beyond it they are dropped and counted
    shifts: tuple[str, ...] = ("06:00", "14:00", "22:00")  # when shifts begin, for the overview
    time_zone: str = ""  # of the shifts, such as Europe/Berlin; "": that of this machine
    line: LineSettings = LineSettings()  # what a plant hears: docs/line.md

    @property
    def runs(self) -> Runs:
        return Runs(self.provider, self.unmeasured)

    def __post_init__(self) -> None:
        check_port(self.port, "service.port")
        if bool(self.certificate) != bool(self.private_key) or (self.client_authority and not self.certificate):
            raise SettingsError(
                "service.certificate and service.private_key go together, and client_authority with them"
            )
        if self.shadow_queue < 1:
            raise SettingsError(f"service.shadow_queue is {self.shadow_queue}; give 1 or more")
        if bad := [text for text in self.shifts if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text)]:
            raise SettingsError(f"service.shifts holds {bad[0]!r}; give times of the day such as 06:00")
        try:
            ZoneInfo(self.time_zone or "UTC")
        except (ValueError, ZoneInfoNotFoundError):
            raise SettingsError(f"service.time_zone is {self.time_zone!r}; give one such as Europe/Berlin") from None


@dataclass(frozen=True)
class InboxSettings:
    """When a file is taken, and when it is given up."""

    settle_seconds: float = 2.0  # a file that changed since then is still being written
    attempts: int = 3  # runs that try a file before it goes to quarantine
    names: str = ""  # what its name tells of the part, such as {lot}/{part}_{station}

    def __post_init__(self) -> None:
        check_pattern(self.names, "inbox.names")


@dataclass(frozen=True)
class WatchSettings:
    """How a stream is watched. Frames in memory are *waiting*, one window, and *longest* small ones of an event."""

    waiting: int = 64  # frames of a live stream; beyond it all of them are dropped and counted
    before: int = 25  # frames of a clip before its first alarm
    behind: int = 12  # frames without an alarm that end an event
    longest: int = 150  # frames of a clip; a longer event is several
    fps: float = 25.0  # at which clips are shown
    say_seconds: float = 60.0  # how often a line tells how it goes
    names: str = ""  # what a file's name tells of the part, such as {lot}_{part}

    def __post_init__(self) -> None:
        check_pattern(self.names, "watch.names")
