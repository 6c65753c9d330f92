"""Who did what, when, from where: one line a step in an append-only file, each chained to the line before by its hash.

A change is written down before it is made ("asked") and after it ("done" or "failed"), so that none takes place
without a line. A chain shows lines that were changed, taken out or put in. It cannot show that lines were cut off at
the end: keep the last hash somewhere else (`loupe audit --head`).
"""

import getpass
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.core import system
from components.core.artefacts import locked
from components.core.places import writing
from components.core.settings import plain

NAME = "audit.jsonl"
FIRST = "0" * 64  # what the first line is chained to
CHAIN = "chain"
TAIL = 65_536  # bytes that the last line is looked for in; a line is shorter
LONGEST = 1_000  # characters of one value in a line; one takes up to six bytes


@dataclass(frozen=True)
class Actor:
    """Who acts, and from where: an address, or this machine."""

    name: str
    place: str


@dataclass(frozen=True)
class Audit:
    """What is in the file: its lines, the hash of the last one, and what is wrong with it by line number."""

    lines: list[dict[str, Any]]
    head: str
    wrong: list[str]
    heads: frozenset[str]


_actor: ContextVar[Actor | None] = ContextVar("actor", default=None)


@contextmanager
def acting(name: str, place: str) -> Iterator[None]:
    """What is written down in the block is said of this one, also in threads that it starts through anyio."""
    token = _actor.set(Actor(name, place))
    try:
        yield
    finally:
        _actor.reset(token)


def actor() -> Actor:
    """Who acts: whom ``acting`` names, otherwise the user of this process, and whose rights sudo lent."""
    if (known := _actor.get()) is not None:
        return known
    try:
        user = getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's number has no name
        user = "a user without a name"
    lent = os.environ.get("SUDO_USER")
    return Actor(f"{user} (sudo by {lent})" if lent else user, socket.gethostname())


@contextmanager
def audited(log: Path, what: str, about: str, before: Any = None, after: Any = None) -> Iterator[dict[str, Any]]:
    """Write down that *what* is asked of *about*, make it in the block, write down how it ended.

    *before* and *after* are what is changed and what it is to become; what the block puts into the mapping is added to
    the line that it is done. Raises PlaceError where nothing can be written, and then nothing is changed either.
    """
    told: dict[str, Any] = {}
    note(log, what, about, "asked", before=before, after=after)
    try:
        yield told
    except BaseException as error:
        note(log, what, about, "failed", why=f"{type(error).__name__}: {error}")
        raise
    note(log, what, about, "done", before=before, after=told.get("after", after))


def note(log: Path, what: str, about: str, state: str, **more: Any) -> None:
    """Append one line; it is on the disk when this returns. Raises PlaceError."""
    by = actor()
    said = {"what": what, "about": about, "state": state, "who": by.name, "from": by.place}
    said = {key: _short(plain(value)) for key, value in {**said, **more}.items() if value is not None}
    with writing(log), locked(log.with_name(f".{log.name}.lock")):
        last, torn = _last(log)
        line = {"at": datetime.now(UTC).isoformat(), **said} | ({"torn": _short(torn)} if torn else {})
        line |= {"n": last[0] + 1}
        text = json.dumps(line | {CHAIN: _chained(last[1], line)}, sort_keys=True)
        with log.open("ab") as stream:
            stream.write(text.encode() + b"\n")
            stream.flush()
            system.flush(stream.fileno())


def read(log: Path) -> Audit:
    """Every line of the file, and whether the chain holds; an absent file has none."""
    lines: list[dict[str, Any]] = []
    wrong: list[str] = []
    head, heads = FIRST, {FIRST}
    parts = log.read_bytes().split(b"\n") if log.exists() else [b""]
    for number, raw in enumerate(parts[:-1], 1):
        line = _parsed(raw)
        expected = line is not None and line.get(CHAIN) == _chained(head, _without(line))
        if line is None or not expected or line.get("n") != number:
            wrong.append(f"line {number}")
        lines += [line] if line is not None else []
        head = _link(raw, line)
        heads.add(head)
    if parts[-1]:
        wrong.append(f"line {len(parts)}, which has no end: a process was killed there")
    return Audit(lines, head, wrong, frozenset(heads))


def _last(log: Path) -> tuple[tuple[int, str], str]:
    """Number and hash of the last line, and the torn piece behind it, which is taken out: nothing followed from it."""
    if not log.exists() or not log.stat().st_size:
        return (0, FIRST), ""
    with log.open("rb+") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - TAIL))
        *whole, torn = stream.read().split(b"\n")
        if torn:
            stream.truncate(size - len(torn))
    if not whole:
        return (0, FIRST), torn.decode(errors="replace")
    line = _parsed(whole[-1])
    many = line["n"] if line and isinstance(line.get("n"), int) else log.read_bytes().count(b"\n")
    return (many, _link(whole[-1], line)), torn.decode(errors="replace")


def _parsed(raw: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def _link(raw: bytes, line: dict[str, Any] | None) -> str:
    """What the next line is chained to; a damaged line by its bytes, so that the file goes on and the damage shows."""
    said = line.get(CHAIN) if line else None
    return said if isinstance(said, str) else hashlib.sha256(raw).hexdigest()


def _without(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != CHAIN}


def _chained(previous: str, line: dict[str, Any]) -> str:
    return hashlib.sha256(f"{previous}\n{json.dumps(line, sort_keys=True)}".encode()).hexdigest()


def _short(value: Any) -> Any:
    """*value*, or the start of it as text where it is long: a line must be found again in TAIL bytes."""
    text = value if isinstance(value, str) else json.dumps(value)
    return value if len(text) <= LONGEST else text[:LONGEST]
