"""Which part a picture shows, as a request or the name of a file tells it: part, lot, recipe, station, operator."""

import re
from collections.abc import Mapping
from functools import lru_cache

from components.core.errors import RequestError, SettingsError
from components.core.records import TRACE_COLUMNS

Trace = dict[str, str | None]
# A letter, digit or underscore comes first: no spreadsheet takes such a text for a formula, no shell for an option.
SAFE = re.compile(r"\w[\w .,:/#+()@-]{0,63}")
KEY = re.compile(r"\w[\w .,:/#+()@-]{0,127}")
RULE = "use 1 to 64 letters, digits, spaces and . , : / # + ( ) @ _ -, a letter or digit first"
HEADER = "x-loupe-"  # and the field's name, for requests whose body is the picture
PLACE = re.compile(r"{(\w*)}")
UNKNOWN: Trace = dict.fromkeys(TRACE_COLUMNS)


def checked(given: Mapping[str, str | None]) -> Trace:
    """The five fields, None where nothing is told. Raises RequestError for a text that is too long or unsafe."""
    for name, value in given.items():
        if value and not SAFE.fullmatch(value):
            raise RequestError(422, f"{name} {value[:80]!r}: {RULE}")
    return {name: given.get(name) or None for name in TRACE_COLUMNS}


def joined(*sides: Mapping[str, str | None]) -> Trace:
    """The fields of a request that tells them in several places. Raises RequestError where two of them differ."""
    found: dict[str, str | None] = {}
    for side in sides:
        for name, value in side.items():
            if value and found.get(name) not in (None, value):
                raise RequestError(422, f"{name} is given twice, as {found[name]!r} and {value!r}; send it once")
            found[name] = found.get(name) or value
    return checked(found)


def checked_key(key: str | None) -> str | None:
    """What a client names a picture by; None without a name. Raises RequestError for an unsafe one."""
    if key and not KEY.fullmatch(key):
        raise RequestError(422, f"id {key[:80]!r}: use 1 to 128 letters, digits and . , : / # + ( ) @ _ -")
    return key or None


def of_headers(headers: Mapping[str, str]) -> Trace:
    """What headers such as X-Loupe-Part tell. Raises RequestError for bytes that are not UTF-8."""
    found: Trace = {}
    for name in TRACE_COLUMNS:
        try:
            found[name] = headers.get(HEADER + name, "").encode("latin-1").decode()
        except UnicodeDecodeError:
            raise RequestError(422, f"header {HEADER}{name}: is not UTF-8; {RULE}") from None
    return found


def of_name(pattern: str, name: str) -> Trace:
    """What the *name* of a picture tells by a pattern such as ``{lot}/{part}_{station}``, its ending left out.

    The pattern stands for the end of the name. One that does not fit, or holds unsafe text, tells nothing.
    """
    found = _compiled(pattern).search(f"/{_stem(name)}") if pattern else None
    told = found.groupdict() if found else {}
    return UNKNOWN | {key: value for key, value in told.items() if SAFE.fullmatch(value)}


def _stem(name: str) -> str:
    stem, dot, ending = name.rpartition(".")
    return stem if dot and "/" not in ending else name


@lru_cache(16)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = PLACE.split(pattern)  # text and names in turns
    made = "".join(re.escape(part) if i % 2 == 0 else f"(?P<{part}>[^/]+?)" for i, part in enumerate(parts))
    return re.compile(f"/{made}$")


def check_pattern(pattern: str, where: str) -> None:
    """Raises SettingsError for a pattern with an unknown or repeated field."""
    names = PLACE.findall(pattern)
    if bad := [name for name in names if name not in TRACE_COLUMNS or names.count(name) > 1]:
        known = ", ".join(f"{{{name}}}" for name in TRACE_COLUMNS)
        raise SettingsError(f"{where} is {pattern!r}; {{{bad[0]}}} cannot stand; use each of {known} once at most")
