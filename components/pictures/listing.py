"""Which files below a folder are pictures: one answer for data sets, batch scoring and copying; needs no torch."""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from components.core.filenames import hidden, printable
from components.pictures.decoding import SUFFIXES

HIDDEN, BROKEN, UNREADABLE = "hidden or of the system", "broken link", "folder that cannot be read"
AGAIN, SPECIAL, BARE = "folder linked again", "no regular file", "without a suffix"
UNSEEN = "file that cannot be looked at"


@dataclass(frozen=True)
class Listing:
    """The pictures found, sorted, and what was passed over by reason: a suffix such as ``.txt`` is one."""

    taken: tuple[Path, ...]
    skipped: dict[str, list[Path]]

    def summary(self) -> str:
        """One line with the counts: taken 120 pictures; skipped 3: 2 .txt, 1 broken link."""
        counts = sorted(((len(paths), reason) for reason, paths in self.skipped.items()), key=lambda c: (-c[0], c[1]))
        taken = f"taken {len(self.taken)} picture{'' if len(self.taken) == 1 else 's'}"
        if not counts:
            return taken
        return f"{taken}; skipped {sum(n for n, _ in counts)}: {', '.join(f'{n} {reason}' for n, reason in counts)}"


def pictures(places: Path | Sequence[Path]) -> Listing:
    """The picture files of one or several folders and all folders below, links followed, each folder once."""
    taken: list[Path] = []
    skipped: dict[str, list[Path]] = {}
    seen: set[tuple[int, int]] = set()
    for place in [places] if isinstance(places, Path) else places:
        for path, reason in _judged(place, seen):
            if reason is None:
                taken.append(path)
            else:
                skipped.setdefault(reason, []).append(path)
    return Listing(tuple(sorted(taken)), {reason: sorted(skipped[reason]) for reason in sorted(skipped)})


def named_as_picture(key: str) -> bool:
    """Whether a key of an object store is that of a picture: by its suffix, with no hidden part."""
    return PurePosixPath(key).suffix.lower() in SUFFIXES and not any(map(hidden, key.split("/")))


def _judged(place: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[Path, str | None]]:
    """What lies below *place*, with the reason for passing it over or None for a picture."""
    failed: list[tuple[Path, str | None]] = []
    walk = os.walk(place, followlinks=True, onerror=lambda e: failed.append((Path(e.filename), UNREADABLE)))
    for folder, below, names in walk:
        if _again(folder, seen):
            yield Path(folder), AGAIN
            below.clear()
            continue
        aside = [name for name in below if hidden(name)]
        below[:] = sorted(set(below) - set(aside))
        yield from ((Path(folder, name), HIDDEN) for name in aside)
        for name in names:
            yield Path(folder, name), _reason(Path(folder, name))
    yield from failed


def _again(folder: str, seen: set[tuple[int, int]]) -> bool:
    found = Path(folder).stat()
    known = (found.st_dev, found.st_ino) in seen
    seen.add((found.st_dev, found.st_ino))
    return known


def _reason(path: Path) -> str | None:
    if hidden(path.name):
        return HIDDEN
    try:
        kind = path.stat().st_mode
    except OSError:
        return BROKEN if path.is_symlink() else UNSEEN
    if not stat.S_ISREG(kind):
        return SPECIAL
    suffix = path.suffix.lower()
    return None if suffix in SUFFIXES else printable(suffix) or BARE
