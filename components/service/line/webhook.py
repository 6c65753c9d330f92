"""Decisions as HTTP POSTs of JSON, signed with a secret that both sides know; the standard library alone."""

import hashlib
import hmac
import json
import time
import urllib.error
import urllib.request
from typing import Any

from components.service.line.cell import Handshake
from components.service.line.messages import Message
from components.service.line.settings import OutputSettings
from components.service.line.sinks import OutOfReachError, RefusedError, secret

LATER = (408, 425, 429)  # answers that ask to come again, beside all from 500 on
SIGNATURE, STAMP, IDENTITY = "X-Loupe-Signature", "X-Loupe-Timestamp", "Idempotency-Key"


class _Stay(urllib.request.HTTPRedirectHandler):
    """A POST that is sent elsewhere would arrive as a GET; the address is to be mended instead."""

    def redirect_request(self, *_: Any) -> None:
        return None


class Webhook:
    """One address."""

    def __init__(self, name: str, settings: OutputSettings) -> None:
        self.settings = settings
        self._secret = secret(settings.secret_variable, name)
        self._opener = urllib.request.build_opener(_Stay)

    def start(self, handshake: Handshake | None) -> None:
        """Nothing is to be done before the first message; controllers do not speak HTTP."""

    def send(self, message: Message) -> None:
        """POST it. Raises OutOfReachError and RefusedError."""
        body = json.dumps(message).encode()
        headers = {"Content-Type": "application/json", IDENTITY: message["id"], **signed(body, self._secret)}
        asked = urllib.request.Request(self.settings.url, body, headers, method="POST")
        try:
            with self._opener.open(asked, timeout=self.settings.timeout_s) as answer:
                answer.read(1024)
        except urllib.error.HTTPError as error:
            error.close()
            kind = OutOfReachError if error.code >= 500 or error.code in LATER else RefusedError
            raise kind(f"HTTP {error.code} {error.reason}") from None
        except OSError as error:
            raise OutOfReachError(str(error)) from None

    def close(self) -> None:
        """Nothing is held open."""


def signed(body: bytes, key: str, at: int | None = None) -> dict[str, str]:
    """The headers that prove who sent *body* and when: HMAC-SHA256 of the time in seconds, a dot, and the body."""
    if not key:
        return {}
    stamp = str(int(time.time()) if at is None else at)
    digest = hmac.new(key.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return {STAMP: stamp, SIGNATURE: f"sha256={digest}"}
