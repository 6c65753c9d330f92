"""Names of files: which are left alone, and each as text that every log, table and terminal can take."""

import os
import unicodedata

# What systems and copy programs leave beside the pictures of a user, in lower case; names with a leading dot as well.
SYSTEM = frozenset({
    "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "$recycle.bin", "recycler",
    "system volume information", "lost+found", "icon\r",
})  # fmt: skip
TEMPORARY = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".download", ".swp", "~")


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
