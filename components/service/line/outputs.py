"""All outputs of one process: one journal on disk, and a sender for each of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.service.line.cell import Handshake
from components.service.line.journal import Journal
from components.service.line.messages import Message
from components.service.line.sender import Sender, forget_others
from components.service.line.settings import LineSettings, OutputSettings
from components.service.line.sinks import Sink, sink_of

MEGABYTE = 1e6


@dataclass(frozen=True)
class Standing:
    """How an output does; *failed* counts tries, *refused* messages that are kept aside."""

    name: str
    queued: int
    sent: int
    failed: int
    refused: int
    failing: bool


class Outputs:
    """Messages go in, and out to each of *chosen*. Raises SettingsError, StorageError where the folder is in use."""

    def __init__(self, chosen: Mapping[str, OutputSettings], folder: Path, most_mb: float) -> None:
        opened: dict[str, Sink] = {name: sink_of(name, one) for name, one in chosen.items()}
        self.journal = Journal(folder, most_mb * MEGABYTE) if opened else None
        self.senders: list[Sender] = []
        if self.journal:
            forget_others(folder, set(opened))
            self.senders = [Sender(name, sink, self.journal, chosen[name]) for name, sink in opened.items()]

    def start(self, handshake: Handshake | None = None) -> None:
        """Connect and send in the background."""
        for sender in self.senders:
            sender.sink.start(handshake)
            sender.start()

    def append(self, messages: Sequence[Message]) -> None:
        """Return when they are on disk; nobody waits for a receiver. Raises StorageError."""
        if self.journal and messages:
            self.journal.append(messages)
            self.journal.trim(sender.place for sender in self.senders)

    def standing(self) -> list[Standing]:
        """One for each output."""
        return [Standing(s.name, s.queued, s.sent, s.failed, s.refused, s.failing) for s in self.senders]

    @property
    def dropped(self) -> int:
        """Messages that the bound of the disk has cost."""
        return self.journal.dropped if self.journal else 0

    def stop(self, seconds: float) -> None:
        """Hand over what can be within *seconds*."""
        for sender in self.senders:
            sender.stop(seconds)
        if self.journal:
            self.journal.close()


def without_servers(settings: LineSettings) -> dict[str, OutputSettings]:
    """The outputs of a process beside the service: a server's port can be held by one alone."""
    return {name: one for name, one in settings.outputs.items() if one.kind != "opcua"}
