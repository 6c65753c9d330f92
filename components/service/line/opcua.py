"""Decisions and the handshake as nodes of an OPC-UA server of our own; the one module that knows asyncua.

The nodes lie below Objects/Loupe and have text ids such as ns=2;s=Loupe.Handshake.Trigger, which stay what they are.
A client that subscribes to Loupe.Decision.Count hears of each decision; the last one stands in the nodes beside it.
"""

import asyncio
import contextlib
import hmac
import json
import logging
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any

from components.core.records import TRACE_COLUMNS
from components.service.line.cell import Handshake, Outputs
from components.service.line.messages import Message
from components.service.line.settings import OutputSettings
from components.service.line.sinks import OutOfReachError, missing, secret

log = logging.getLogger("loupe")
NAMESPACE = "urn:loupe:line"
PERIOD_MS = 20  # how often what controllers wrote is looked at
# Node, its value at the start, and what of a message it shows.
DECISION = {
    "Id": ("", "id"), "Kind": ("", "kind"), "At": ("", "at"), "Decision": ("", "decision"), "PValue": (0.0, "p_value"),
    "Score": (0.0, "score"), "Threshold": (0.0, "threshold"), "Source": ("", "source"), "ImageId": ("", "image_id"),
    "Regions": ("[]", "regions"), "Reason": ("", "reason"), "Model": ("", "model"),
    **{name.title(): ("", name) for name in TRACE_COLUMNS},
}  # fmt: skip
INPUTS = {"Trigger": False, "Acknowledge": False, "RecipeIndex": 0, "Part": "", "Lot": "", "Operator": ""}
NAMES = {"RecipeIndex": "recipe"}  # what the handshake calls them; the others by their name in small letters
OUTPUTS = {
    "Ready": "ready", "Busy": "busy", "ResultReady": "result_ready", "OK": "ok", "NG": "ng", "Error": "error",
    "ErrorReason": "reason", "ResultId": "id", "State": "state",
}  # fmt: skip


class OpcUa:
    """A server in a thread with a loop of its own; ``send`` writes the nodes of the last decision."""

    def __init__(self, name: str, settings: OutputSettings) -> None:
        try:
            import asyncua
        except ImportError:
            raise missing(name) from None
        self.tool: Any = asyncua
        self.settings = settings
        self.user = secret(settings.user_variable, name), secret(settings.password_variable, name)
        self.handshake: Handshake | None = None
        self.nodes: dict[str, Any] = {}
        self._server: Any = None
        self._loop = asyncio.new_event_loop()
        self._beginning: Future[None] | None = None
        self._count = 0

    def start(self, handshake: Handshake | None) -> None:
        """Begin to listen, in the background: controllers may connect before there is a decision."""
        self.handshake = handshake
        if handshake is not None:
            handshake.listeners.append(self._told)
        threading.Thread(target=self._loop.run_forever, name="opcua", daemon=True).start()
        self._beginning = self._soon(self._begin())
        self._beginning.add_done_callback(self._begun)

    def _begun(self, task: "Future[None]") -> None:
        if not task.cancelled() and (error := task.exception()):
            log.error("opcua: %s does not listen: %s: %s", self.settings.url, type(error).__name__, error)

    def _within(self, task: "Future[Any]") -> Any:
        """What the server's loop makes of *task*. Raises OutOfReachError; the task goes on."""
        try:
            return task.result(self.settings.timeout_s)
        except Exception as error:
            raise OutOfReachError(f"{type(error).__name__}: {error}") from None

    def _soon(self, work: Coroutine[Any, Any, Any]) -> "Future[Any]":
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _begin(self) -> None:
        users = _Users(*self.user) if self.user[0] else None
        server = self.tool.Server(user_manager=users)
        await server.init()
        server.set_endpoint(self.settings.url)
        server.set_server_name("Loupe")
        server.set_security_policy([self.tool.ua.SecurityPolicyType.NoSecurity])
        if users:
            server.set_identity_tokens([self.tool.ua.UserNameIdentityToken])
        space = await server.register_namespace(NAMESPACE)
        await self._fill(server, space)
        await server.start()
        self._server = server
        if self.handshake is not None:
            await self._listen(server)
            await self._write(self.handshake.outputs)

    async def _fill(self, server: Any, space: int) -> None:
        root = await server.nodes.objects.add_object(self._id("Loupe", space), "Loupe")
        decision = await root.add_object(self._id("Loupe.Decision", space), "Decision")
        for name, (value, _) in {**DECISION, "Count": (0, ""), "Message": ("{}", "")}.items():
            await self._node(decision, f"Loupe.Decision.{name}", name, value, space)
        if self.handshake is None:
            return
        cell = await root.add_object(self._id("Loupe.Handshake", space), "Handshake")
        for name, value in INPUTS.items():
            node = await self._node(cell, f"Loupe.Handshake.{name}", name, value, space)
            await node.set_writable()
        for name, key in OUTPUTS.items():
            await self._node(cell, f"Loupe.Handshake.{name}", name, self.handshake.outputs[key], space)

    def _id(self, text: str, space: int) -> Any:
        return self.tool.ua.NodeId(text, space)

    async def _node(self, parent: Any, text: str, name: str, value: Any, space: int) -> Any:
        node = await parent.add_variable(self._id(text, space), name, value, self._kind(value))
        self.nodes[text] = node
        return node

    def _kind(self, value: Any) -> Any:
        kinds = self.tool.ua.VariantType
        return {bool: kinds.Boolean, int: kinds.UInt32, float: kinds.Double, str: kinds.String}[type(value)]

    async def _set(self, text: str, value: Any) -> None:
        await self.nodes[text].write_value(self.tool.ua.Variant(value, self._kind(value)))

    def send(self, message: Message) -> None:
        """Return when the nodes hold it, Count last. Raises OutOfReachError where the server cannot listen."""
        if self._beginning is None or (self._beginning.done() and self._server is None):  # try again
            self._beginning = self._soon(self._begin())
        self._within(self._beginning)
        self._within(self._soon(self._show(message)))

    async def _show(self, message: Message) -> None:
        for name, (value, key) in DECISION.items():
            await self._set(f"Loupe.Decision.{name}", _plain(message.get(key), value))
        await self._set("Loupe.Decision.Message", json.dumps(message))
        self._count += 1
        await self._set("Loupe.Decision.Count", self._count)

    def _told(self, outputs: Outputs) -> None:
        if self._server is not None:
            self._soon(self._write(dict(outputs)))

    async def _write(self, outputs: Outputs) -> None:
        """Reasons and ids first: who sees a flag rise finds them there."""
        for name in ("ErrorReason", "ResultId", "State", "OK", "NG", "Error", "Busy", "Ready", "ResultReady"):
            await self._set(f"Loupe.Handshake.{name}", outputs[OUTPUTS[name]])

    async def _listen(self, server: Any) -> None:
        subscription = await server.create_subscription(PERIOD_MS, self)
        levels = [self.nodes[f"Loupe.Handshake.{name}"] for name in ("Trigger", "Acknowledge")]
        await subscription.subscribe_data_change(levels)

    async def datachange_notification(self, node: Any, value: Any, _: Any) -> None:
        """A level was written: what stands beside it goes with it."""
        given = {name: await self.nodes[f"Loupe.Handshake.{name}"].read_value() for name in INPUTS}
        given[str(node.nodeid.Identifier).rpartition(".")[2]] = value
        if self.handshake is not None:
            self.handshake.put({NAMES.get(name, name.lower()): known for name, known in given.items()})

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            with contextlib.suppress(OutOfReachError):
                self._within(self._soon(self._server.stop()))
        self._loop.call_soon_threadsafe(self._loop.stop)


def _plain(value: Any, kind: Any) -> Any:
    """*value* as the type of a node's first one; the first one where there is none."""
    if value is None:
        return kind
    if isinstance(kind, str) and not isinstance(value, str):
        return json.dumps(value)
    return float(value) if isinstance(kind, float) else value


class _Users:
    """Who may connect, where a name is asked for."""

    def __init__(self, name: str, password: str) -> None:
        from asyncua.crypto.permission_rules import User, UserRole

        self.known, self.user = f"{name}\n{password}".encode(), User(role=UserRole.User)

    def get_user(self, _: Any, username: Any = None, password: Any = None, certificate: Any = None) -> Any:  # noqa: ARG002
        given = f"{username}\n{password}".encode()
        return self.user if hmac.compare_digest(given, self.known) else None
