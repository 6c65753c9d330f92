"""Decisions and the handshake over MQTT; the one module that knows paho-mqtt.

Decisions go to <topic>/picture/<source> and <topic>/part, quality of service 1, one after the other. <topic>/status is
online or, by the broker's own word, offline. A controller sets <topic>/handshake/set/<name> and reads
<topic>/handshake/state; both it and the status are retained.
"""

import json
import logging
import threading
import uuid
from typing import Any
from urllib.parse import urlsplit

from components.service.line.cell import LEVELS, TEXTS, Handshake, Outputs
from components.service.line.messages import PART, Message
from components.service.line.settings import OutputSettings
from components.service.line.sinks import OutOfReachError, missing, secret

log = logging.getLogger("loupe")
PORTS = {"mqtt": 1883, "mqtts": 8883}
ON = ("1", "true", "on")
OFF = ("0", "false", "off")
KEEPALIVE = 30
AGAIN = 2.0  # seconds before a controller's way is opened again


class Mqtt:
    """One broker. The connection is made with the first message or for the handshake, and again after every loss."""

    def __init__(self, name: str, settings: OutputSettings) -> None:
        try:
            import paho.mqtt.client as paho
        except ImportError:
            raise missing(name) from None
        self.paho: Any = paho
        self.settings, self.topic = settings, settings.topic.strip("/")
        self.user = secret(settings.user_variable, name), secret(settings.password_variable, name)
        self.handshake: Handshake | None = None
        self._client: Any = None
        self._lock = threading.Lock()
        self._ending = threading.Event()

    def start(self, handshake: Handshake | None) -> None:
        """Stay connected where a controller may speak at any time."""
        self.handshake = handshake
        if handshake is not None:
            handshake.listeners.append(self._told)
            threading.Thread(target=self._stay, name="mqtt-handshake", daemon=True).start()

    def _stay(self) -> None:
        while not self._ending.is_set():
            try:
                self._connected()
            except Exception as error:
                log.debug("mqtt: no way to controllers: %s", error)
            self._ending.wait(AGAIN)

    def send(self, message: Message) -> None:
        """Return when the broker has acknowledged it. Raises OutOfReachError."""
        place = PART if message["kind"] == PART else f"{message['kind']}/{message['source']}"
        client = self._connected()
        try:
            sent = client.publish(f"{self.topic}/{place}", json.dumps(message), qos=1)
            sent.wait_for_publish(self.settings.timeout_s)
            done = sent.is_published()
        except (RuntimeError, ValueError) as error:
            self._drop()
            raise OutOfReachError(str(error)) from None
        if not done:  # with a new client it is not sent a second time, out of turn, by the old one
            self._drop()
            raise OutOfReachError(f"no acknowledgement within {self.settings.timeout_s:g} s")

    def _connected(self) -> Any:
        with self._lock:
            if self._client is not None and self._client.is_connected():
                return self._client
            self._let_go()
            self._client = self._made()
            if self.handshake is not None:  # what changed while the connection was being opened found no client
                self.handshake.tell(self._told)
            return self._client

    def _made(self) -> Any:
        paho, there = self.paho, threading.Event()
        answers: list[Any] = []
        client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"loupe-{uuid.uuid4().hex[:16]}")
        address = urlsplit(self.settings.url)
        if address.scheme == "mqtts":
            client.tls_set()
        if self.user[0]:
            client.username_pw_set(*self.user)
        client.will_set(f"{self.topic}/status", "offline", qos=1, retain=True)

        def connected(one: Any, _: Any, __: Any, reason: Any, ___: Any) -> None:
            answers.append(reason)
            if not reason.is_failure:
                self._greet(one)
            there.set()

        client.on_connect = connected
        client.on_message = self._heard
        client.connect_timeout = self.settings.timeout_s
        try:
            client.connect(address.hostname, address.port or PORTS[address.scheme], KEEPALIVE)
        except (OSError, ValueError) as error:
            raise OutOfReachError(str(error)) from None
        client.loop_start()
        if not there.wait(self.settings.timeout_s) or answers[-1].is_failure:
            client.loop_stop()
            raise OutOfReachError(f"the broker says {answers[-1]}" if answers else "the broker does not answer")
        return client

    def _greet(self, client: Any) -> None:
        client.publish(f"{self.topic}/status", "online", qos=1, retain=True)
        if self.handshake is not None:
            client.subscribe(f"{self.topic}/handshake/set/+", qos=1)
            client.publish(f"{self.topic}/handshake/state", json.dumps(self.handshake.outputs), qos=1, retain=True)

    def _told(self, outputs: Outputs) -> None:
        """The controller's view; where there is no connection it is told with the next one."""
        client = self._client
        if client is not None and client.is_connected():
            client.publish(f"{self.topic}/handshake/state", json.dumps(outputs), qos=1, retain=True)

    def _heard(self, _: Any, __: Any, message: Any) -> None:
        name = message.topic.rpartition("/")[2]
        given = value_of(name, message.payload)
        # A retained level is of an earlier time: a trigger of yesterday must start nothing.
        if self.handshake is None or given is None or (message.retain and name in LEVELS):
            log.warning("mqtt: %s is not taken: %r", message.topic, message.payload[:80])
            return
        self.handshake.put({name: given})

    def _drop(self) -> None:
        with self._lock:
            self._let_go()

    def _let_go(self) -> None:
        if self._client is not None:
            self._client.on_message = None
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def close(self) -> None:
        """Say that nothing comes any more, and go."""
        self._ending.set()
        with self._lock:
            if self._client is not None and self._client.is_connected():
                self._client.publish(f"{self.topic}/status", "offline", qos=1, retain=True).wait_for_publish(1.0)
            self._let_go()


def value_of(name: str, payload: bytes) -> bool | int | str | None:
    """What a controller's text means for the input *name*; None where it means nothing."""
    text = payload.decode("utf-8", "replace").strip()
    if name in LEVELS:
        return text.lower() in ON if text.lower() in (*ON, *OFF) else None
    if name == "recipe":
        return int(text) if text.isdecimal() and len(text) < 10 else None
    return text if name in TEXTS else None
