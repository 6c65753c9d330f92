"""Names of files: which are left alone, and each as text that every log, table and terminal can take."""

import os
import re
import unicodedata
from pathlib import Path, PurePosixPath, PureWindowsPath

from components.core import system
from components.core.errors import DataError

# What systems and copy programs leave beside the pictures of a user, in lower case; names with a leading dot as well.
SYSTEM = frozenset({
    "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin", "recycler",
    "system volume information", "lost+found", "icon\r",
})  # fmt: skip
TEMPORARY = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".download", ".swp", "~")

# What no name on Windows may have; signs of an address that are written so are read as these again.
REFUSED = re.compile(r'[<>:"|?*]|[. ]$|^(?:con|prn|aux|nul|com\d|lpt\d)(?=\.|$)', re.IGNORECASE)
WRITTEN = re.compile(r"%(3C|3E|3A|22|7C|3F|2A|2E$|20$)|^%([0-9A-F]{2})(?=on|rn|ux|ul|om\d|pt\d)", re.IGNORECASE)


def stored(name: str) -> str:
    """*name* as a file or folder is called: on Windows what it refuses is written as in an address, ``:`` as %3A."""
    return REFUSED.sub(lambda found: f"%{ord(found[0][0]):02X}{found[0][1:]}", name) if system.WINDOWS else name


def called(stored_as: str) -> str:
    """The name that ``stored`` made this of."""
    return WRITTEN.sub(lambda found: chr(int(found[1] or found[2], 16)), stored_as) if system.WINDOWS else stored_as


def inside(folder: Path, name: str) -> Path:
    """The file *name*, which somebody else has given, below *folder*. Raises DataError for one that would lie outside.

    By its words alone; in a folder that others may write, a part of it could be a link.
    """
    plain = name and "\0" not in name and not any(part in ("", ".", "..") for part in name.split("/"))
    if not plain or PurePosixPath(name).is_absolute() or (system.WINDOWS and _leads_away(name)):
        raise DataError(f"{name!r}: would lie outside {folder}; nothing was written, look who gave this name")
    return folder / name


def _leads_away(name: str) -> bool:
    found = PureWindowsPath(name)
    return bool(found.drive or found.root) or ".." in found.parts


def printable(name: str) -> str:
    """*name* as valid text: bytes that are no UTF-8 as escapes such as ``\\xff``; two names never become the same."""
    if "\\x" not in name and not _escaped(name):
        return name
    return os.fsencode(name.replace("\\", "\\\\")).decode("utf-8", "backslashreplace")


def _escaped(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:  # Python stands lone surrogates in for bytes that are no UTF-8
        return True
    return False


def normal(name: str) -> str:
    """*name* with each accented letter as one character (NFC), for comparing: Macs write it as two."""
    return unicodedata.normalize("NFC", name)


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is left alone: hidden, of the system, or still being copied."""
    low = name.lower()
    return low.startswith((".", "~")) or low.endswith(TEMPORARY) or low in SYSTEM
