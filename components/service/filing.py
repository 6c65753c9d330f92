"""From a file's place in the inbox to the source and the image name that its record is filed under."""

import hashlib
import os
import unicodedata

from components.core.filenames import hidden

INBOX = "inbox/"
DEFAULT_SOURCE = "line"  # that of the service, too
NAME_BYTES, PATH_BYTES = 200, 800  # what a file name, and a key, can hold beside what is put before and behind it


def taken(key: str) -> bool:
    """Whether this object of the inbox is a picture to score, not one that a system or a copy tool left there."""
    return not key.endswith("/") and not any(hidden(part) for part in parts(key))


def parts(key: str) -> list[str]:
    return [part for part in key.removeprefix(INBOX).split("/") if part]


def filed(key: str) -> tuple[str, str]:
    """Source and image_id: the first folder and the rest; a file in no folder is of the default source.

    A name is in composed Unicode, so that a line is one source whichever system wrote its name.
    """
    source, *rest = [unicodedata.normalize("NFC", part) for part in parts(key)]
    if not rest:
        source, rest = DEFAULT_SOURCE, [source]
    return storable(source, NAME_BYTES), storable("/".join(rest), PATH_BYTES)


def storable(name: str, most: int) -> str:
    """*name* itself where it can be shown and stored in *most* bytes, else a stable one with the start of its hash."""
    shown = "".join(letter if _plain(letter) else "_" for letter in name)
    if shown == name and len(name.encode()) <= most:
        return name
    digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
    stem, dot, ending = shown.rpartition(".")
    if not stem or "/" in ending or len(ending.encode()) > 8:
        stem, dot, ending = shown, "", ""
    short = stem.encode()[: most - 32].decode(errors="ignore")
    return f"{short}-{digest}{dot}{ending}"


def _plain(letter: str) -> bool:
    return letter.isprintable() or unicodedata.category(letter) == "Zs"


def kept_at(folder: str, key: str) -> str:
    """A key below *folder* for what lay in the inbox at *key*; two files never share one."""
    inside = "/".join(storable(part, NAME_BYTES) for part in parts(key))
    return f"{folder}/{storable(inside, PATH_BYTES)}"
