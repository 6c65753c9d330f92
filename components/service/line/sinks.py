"""What an output is, and how the adapter of its tool is opened: one module a tool, loaded where it is configured."""

import os
from collections.abc import Callable
from typing import Protocol

from components.core.errors import SettingsError
from components.service.line.cell import Handshake
from components.service.line.messages import Message
from components.service.line.settings import OutputSettings


class OutOfReachError(Exception):
    """The receiver cannot be reached now; the message waits."""


class RefusedError(Exception):
    """The receiver does not take this message; after some tries it is kept aside."""


class Sink(Protocol):
    """Hands messages over, one at a time; ``send`` returns when the receiver has it.

    Raises OutOfReachError or RefusedError; whatever else it raises is taken for the first. *handshake* of ``start`` is
    None where the service has none; an adapter that controllers cannot use leaves it alone.
    """

    def start(self, handshake: Handshake | None) -> None: ...

    def send(self, message: Message) -> None: ...

    def close(self) -> None: ...


def sink_of(name: str, settings: OutputSettings) -> Sink:
    """The adapter of *settings*, not yet connected. Raises SettingsError without its extra, or without a secret."""
    return ADAPTERS[settings.kind](name, settings)


def _mqtt(name: str, settings: OutputSettings) -> Sink:
    from components.service.line.mqtt import Mqtt

    return Mqtt(name, settings)


def _webhook(name: str, settings: OutputSettings) -> Sink:
    from components.service.line.webhook import Webhook

    return Webhook(name, settings)


def _opcua(name: str, settings: OutputSettings) -> Sink:
    from components.service.line.opcua import OpcUa

    return OpcUa(name, settings)


ADAPTERS: dict[str, Callable[[str, OutputSettings], Sink]] = {"mqtt": _mqtt, "webhook": _webhook, "opcua": _opcua}


def secret(variable: str, name: str) -> str:
    """What the environment holds under *variable*; "" where none is named. Raises SettingsError where it is empty."""
    if variable and not os.environ.get(variable):
        raise SettingsError(f"service.line.outputs.{name}: {variable} is not set; set it in the environment")
    return os.environ.get(variable, "") if variable else ""


def missing(name: str) -> SettingsError:
    """What is said where the extra is not installed."""
    return SettingsError(f"service.line.outputs.{name} needs the extra `line`: pip install 'loupe[line]'")
