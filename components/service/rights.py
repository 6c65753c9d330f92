"""Who may do what: the service's bearer token reads, scores and labels; the operator's may change what is served."""

import hmac
import os
from typing import Literal

from fastapi import Request

from components.core.errors import RequestError
from components.service.settings import ServiceSettings

Role = Literal["operator", "reader", "anybody"]


class Rights:
    """Both tokens come from the environment, read once; the operator's opens everything that the other one does."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.variable = settings.operator_variable
        self._token = os.environ.get(settings.token_variable, "")
        self._operator = os.environ.get(settings.operator_variable, "")

    def role(self, request: Request) -> Role | None:
        """What the request's token stands for; None where it is none of ours and one is needed."""
        given = request.headers.get("authorization", "").encode("latin-1", "replace")
        if self._operator and hmac.compare_digest(given, f"Bearer {self._operator}".encode()):
            return "operator"
        if not self._token:
            return "anybody"
        return "reader" if hmac.compare_digest(given, f"Bearer {self._token}".encode()) else None

    def read(self, request: Request) -> None:
        """Raises RequestError 401 without one of the tokens, where the environment sets the first."""
        if self.role(request) is None:
            raise RequestError(401, "the bearer token is missing or wrong; send Authorization: Bearer TOKEN")

    @property
    def changes(self) -> bool:
        """Whether anybody may change what is served."""
        return bool(self._operator)

    def change(self, request: Request) -> None:
        """Raises RequestError 403 unless the operator's token is sent; without one in the environment nobody may."""
        if not self._operator:
            raise RequestError(403, f"changes are off: start the service with {self.variable}, and send that token")
        if self.role(request) != "operator":
            raise RequestError(403, "this changes what is served and needs the operator's token")
