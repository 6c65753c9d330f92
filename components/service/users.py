"""Named users of the service: a file of names, roles and hashes of tokens, made by `loupe users` and read anew."""

import hashlib
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from components.core.artefacts import locked, read_json, write_json
from components.core.checks import check_known, check_name
from components.core.errors import DataError, LoupeError, RequestError, SettingsError
from components.core.settings import build

Role = Literal["viewer", "operator", "engineer"]
ROLES: tuple[Role, ...] = get_args(Role)  # each may what those before it may
USERS = "LOUPE_USERS"  # replaces service.users


@dataclass(frozen=True)
class User:
    """*token* is the SHA-256 of a token of 256 random bits, which no list of words finds; the token is kept nowhere."""

    role: Role
    token: str
    added: str


def place_of(setting: str) -> Path | None:
    """The file of the users, where one is named."""
    named = os.environ.get(USERS) or setting
    return Path(named) if named else None


def read_users(path: Path) -> dict[str, User]:
    """The users of a file, by name. Raises SettingsError."""
    try:
        values = read_json(path)
        if not isinstance(values, Mapping) or not isinstance(values.get("users"), Mapping):
            raise SettingsError(f"{path}: holds no users; make it with `loupe users add`")
        return {name: build(User, _mapping(one, path), f"{path}: {name}") for name, one in values["users"].items()}
    except (OSError, DataError, RecursionError) as error:
        why = getattr(error, "strerror", None) or "it is damaged"
        raise SettingsError(f"{path}: cannot be read ({why}); make it with `loupe users add`") from None


def _mapping(value: Any, path: Path) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise SettingsError(f"{path}: holds a user without role and token; make it with `loupe users add`")
    return value


def add_user(path: Path, name: str, role: str) -> str:
    """Add *name*, or give it a new token and role; returns the token, which is said this once. Raises SettingsError."""
    check_name(name, "the user")
    check_known(role, ROLES, "--role")
    token = f"loupe-{secrets.token_urlsafe(32)}"
    with locked(path.with_name(f".{path.name}.lock")):
        known = read_users(path) if path.exists() else {}
        _write(path, known | {name: User(role, _hash(token), datetime.now(UTC).isoformat())})  # type: ignore[arg-type]
    return token


def remove_user(path: Path, name: str) -> None:
    """Whoever sends this one's token is nobody from now on. Raises SettingsError."""
    with locked(path.with_name(f".{path.name}.lock")):
        known = read_users(path)
        check_known(name, known, f"{path}")
        _write(path, {other: user for other, user in known.items() if other != name})


def _write(path: Path, users: Mapping[str, User]) -> None:
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
    write_json(path, {"users": users})
    path.chmod(mode)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


class Users:
    """The users of a file that may change while the service runs: a token that is taken away opens nothing any more."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsError."""
        self.path = path
        self._mark = self._state()
        self._known = read_users(path)

    def find(self, token: str) -> tuple[str, Role] | None:
        """Name and role of whose token it is. Every user is compared, in a time that says nothing of the token.

        Raises RequestError 503 where the file cannot be read any more: then nobody is let in.
        """
        try:
            if (mark := self._state()) != self._mark:
                self._known, self._mark = read_users(self.path), mark
        except LoupeError as error:
            raise RequestError(503, f"the users cannot be read; {error}") from None
        given, found = _hash(token), None
        for name, user in self._known.items():
            if hmac.compare_digest(given, user.token):
                found = name, user.role
        return found

    def _state(self) -> tuple[int, int, int]:
        try:
            state = self.path.stat()
        except OSError as error:
            raise SettingsError(f"{self.path}: cannot be read ({error.strerror}); `loupe users add` makes it") from None
        return state.st_mtime_ns, state.st_size, state.st_ino
