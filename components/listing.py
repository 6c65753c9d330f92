"""Names in folders that are no pictures: what systems, editors and copy tools leave beside them."""

TEMPORARY = (".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".download", ".swp", "~")
SYSTEM = {
    "thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "$recycle.bin", "system volume information", "lost+found",
    "@eadir", "#recycle", "icon\r",
}  # fmt: skip


def hidden(name: str) -> bool:
    """Whether a file or folder of this name is left alone: hidden, of the system, or still being copied."""
    low = name.lower()
    return low.startswith((".", "~")) or low.endswith(TEMPORARY) or low in SYSTEM
