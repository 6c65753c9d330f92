"""Who may do what: a viewer reads, an operator scores and labels, an engineer changes what is served.

Three kinds of tokens open the service: those of named users (``service.users``), the service's own (LOUPE_TOKEN, as an
operator's) and the operator's of older versions (LOUPE_OPERATOR_TOKEN, as an engineer's). With none of them everybody
may read, score and label, and nobody may change anything.
"""

import hmac
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import Request

from components.core.audit import NAME, acting, audited, note
from components.core.errors import RequestError
from components.core.secret import secret
from components.service.settings import ServiceSettings
from components.service.users import ROLES, USERS, Role, Users, place_of

SCHEME = "Bearer "


@dataclass(frozen=True)
class Caller:
    """Who sends a request, by what its token stands for; *name* is empty where nobody has to say who he is."""

    name: str
    role: Role
    address: str
    user: bool = False  # one of the named users

    def may(self, role: Role) -> bool:
        return ROLES.index(self.role) >= ROLES.index(role)

    @property
    def told(self) -> str:
        return self.name or "anybody"


class Rights:
    """The two tokens come from the environment or a file that it names, and are read once. Raises SettingsError."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.variable = settings.operator_variable
        self.log = Path(settings.spool) / NAME
        self._token, self._operator = secret(settings.token_variable), secret(settings.operator_variable)
        place = place_of(settings.users)
        self._users = Users(place) if place else None

    def caller(self, request: Request) -> Caller | None:
        """Who asks; None where the token is none of ours and one is needed."""
        given = request.headers.get("authorization", "")
        token = given.removeprefix(SCHEME) if given.startswith(SCHEME) else ""
        sent = token.encode("latin-1", "replace")  # the bytes of the header, as they came
        address = request.client.host if request.client else "unknown"
        if _same(sent, self._operator):
            return Caller("token of the operator", "engineer", address)
        if _same(sent, self._token):
            return Caller("token of the reader", "operator", address)
        if self._users and token and (found := self._users.find(token)):
            return Caller(*found, address, user=True)
        return None if self._token or self._users else Caller("", "operator", address)

    def need(self, role: Role) -> Callable[[Request], Caller]:
        """The guard of a route: who asks, if he may. Raises RequestError 401 for a stranger, 403 for too low a role."""

        def check(request: Request) -> Caller:
            if role == "engineer" and not self.changes:
                said = f"start the service with {self.variable} or {USERS}, and send such a token"
                raise RequestError(403, f"changes are off: {said}")
            caller = self.caller(request)
            if caller is None and role != "engineer":
                raise RequestError(401, "the bearer token is missing or wrong; send Authorization: Bearer TOKEN")
            if caller is None or not caller.may(role):
                self._written(request, caller, role)
                raise RequestError(403, f"this needs the token of an {role}; ask one who has it")
            return caller

        return check

    def _written(self, request: Request, caller: Caller | None, role: Role) -> None:
        """That somebody known tried; strangers are not written down, who could fill the disk."""
        if caller is not None and caller.name:
            with acting(caller.name, caller.address):
                path = request.scope["route"].path if "route" in request.scope else request.url.path
                note(self.log, f"{request.method} {path}", f"needs an {role}", "refused", role=caller.role)

    @contextmanager
    def written(
        self, caller: Caller, what: str, about: str, before: Any = None, after: Any = None
    ) -> Iterator[dict[str, Any]]:
        """The block is a change by *caller*, in this service's audit record before it is made and when it is."""
        with acting(caller.told, caller.address), audited(self.log, what, about, before, after) as told:
            yield told

    @property
    def changes(self) -> bool:
        """Whether anybody may change what is served."""
        return bool(self._operator) or self._users is not None


def _same(given: bytes, ours: str) -> bool:
    """Compared in constant time; what was not set opens nothing."""
    return bool(ours) and hmac.compare_digest(given, ours.encode("utf-8", "surrogateescape"))
