"""Secrets come from the environment, or from a file that it names; never from a command line or params.yaml."""

import os
import re
from pathlib import Path

from components.core.errors import SettingsError

FILE = "_FILE"
LARGEST = 65_536
LOGIN = re.compile(r"(?<=://)[^/@\s'\"]*@")  # name and password in an address


def secret(name: str) -> str:
    """The value of the variable *name*, or the content of the file that *name*_FILE names, without its last line end.

    Empty where neither is set. Raises SettingsError where both are, or the file cannot be read; what is in it is never
    part of a message.
    """
    value, place = os.environ.get(name, ""), os.environ.get(name + FILE, "")
    if not place:
        return value
    if value:
        raise SettingsError(f"{name} and {name}{FILE} are both set; leave one of them out")
    try:
        if Path(place).stat().st_size > LARGEST:
            raise SettingsError(f"{name}{FILE}: {place} is too large for a secret; name another file")
        found = Path(place).read_text("utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text"
        raise SettingsError(f"{name}{FILE}: {place} cannot be read ({why}); name a file with the secret") from None
    if not found:
        raise SettingsError(f"{name}{FILE}: {place} is empty; put the secret into it")
    return found


def public(text: str) -> str:
    """*text* without the name and the password that an address in it holds, for messages and logs."""
    return LOGIN.sub("", text)
