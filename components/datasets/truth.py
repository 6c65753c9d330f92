"""Which mask file belongs to which picture; by names alone, nothing is opened and nothing is matched by its order."""

import csv
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from components.core.errors import DataError
from components.core.filenames import normal, printable
from components.pictures.masks import SEPARATOR

# What folders of masks are called, in any case; the last ones are names of defects too and count beside ``test`` only.
FOLDERS = frozenset({
    "ground_truth", "groundtruth", "ground-truth", "ground truth", "gt", "mask", "masks", "annotations",
})  # fmt: skip
BESIDE_TEST = FOLDERS | {"label", "labels", "annotation", "segmentation"}
TABLE = "masks.csv"
_KINDS = "masks?|gt|ground[_-]?truth|seg(?:mentation)?"
ENDING = re.compile(rf"(.+?)[_\-. ]+(?:{_KINDS})(?:[_\-. ]*\d+)?", re.IGNORECASE)
ANY_ENDING = re.compile(rf"(.+?)[_\-. ]+(?:{_KINDS}|labels?|annotations?)(?:[_\-. ]*\d+)?", re.IGNORECASE)
BEGINNING = re.compile(rf"(?:{_KINDS}|labels?)[_\-. ]+(.+)", re.IGNORECASE)
NUMBER = re.compile(r"(.+?)[_-]\d+")


@dataclass
class Matches:
    """Mask files by picture, and those that belong to none; POSIX paths below the data set's folder."""

    found: dict[str, list[str]] = field(default_factory=dict)
    unmatched: list[str] = field(default_factory=list)

    def add(self, picture: str | None, mask: str) -> None:
        """Note that *mask* belongs to *picture*; None: to nothing known."""
        if picture is None or SEPARATOR in mask or printable(mask) != mask:
            self.unmatched.append(printable(mask))
        elif mask not in self.found.setdefault(picture, []):
            self.found[picture].append(mask)

    def mask(self, picture: str) -> str | None:
        """What a row's ``mask`` says of *picture*."""
        return SEPARATOR.join(sorted(self.found.get(picture, []))) or None


def is_truth(name: str) -> bool:
    """Whether a folder of this name below ``test`` holds masks."""
    return normal(name).casefold() in FOLDERS


def truth_folders(root: Path) -> list[Path]:
    """The folders of masks beside ``test``."""
    return [p for p in sorted(root.iterdir()) if p.is_dir() and normal(p.name).casefold() in BESIDE_TEST]


def beside(paths: Iterable[Path]) -> tuple[list[Path], list[tuple[Path, Path | None]]]:
    """Pictures, and the masks between them (x_mask.png beside x.png) with their picture.

    Where a folder has such masks, one whose picture is missing is no picture either.
    """
    every = list(paths)
    stems = {(path.parent, normal(path.stem)): path for path in every}
    likely = {path: ENDING.fullmatch(normal(path.stem)) for path in every}
    masks = {path: stems.get((path.parent, found[1])) for path, found in likely.items() if found}
    folders = {path.parent for path, picture in masks.items() if picture}
    masks = {path: picture for path, picture in masks.items() if path.parent in folders}
    return [path for path in every if path not in masks], list(masks.items())


class Index:
    """The pictures of a test side by their path, (folder, below, stem), with and without the suffix."""

    def __init__(self, pictures: Sequence[tuple[str, str]], normals: set[str]) -> None:
        """*pictures* are (image_id, path below the test side); *normals* are the folders of good ones."""
        self.exact: dict[str, set[str]] = {}
        self.folded: dict[str, set[str]] = {}
        self.stems: dict[tuple[str, str], set[str]] = {}  # by folder of the defect; "" are all anomalous ones
        self.folders = {normal(path).partition("/")[0].casefold() for _, path in pictures}
        for image_id, path in pictures:
            place, known = PurePosixPath(normal(path)), (self.exact, self.folded)
            for name in (place.stem, place.name):
                key = (place.parent / name).as_posix()
                for table, text in zip(known, (key, key.casefold()), strict=True):
                    table.setdefault(text, set()).add(image_id)
            for folder in (place.parts[0].casefold(), *([] if place.parts[0] in normals else [""])):
                self.stems.setdefault((folder, place.stem.casefold()), set()).add(image_id)

    def by_path(self, parts: Sequence[str]) -> str | None:
        key = "/".join(parts)
        return _only(self.exact.get(key)) or _only(self.folded.get(key.casefold()))

    def by_stem(self, folder: str, stem: str) -> str | None:
        return _only(self.stems.get((folder.casefold(), stem.casefold())))


def _only(found: set[str] | None) -> str | None:
    return next(iter(found)) if found and len(found) == 1 else None


def match(index: Index, masks: Sequence[str]) -> Iterator[str | None]:
    """The picture of each mask, given by its path below its folder of masks."""
    places = [_parts(path) for path in masks]
    one_folder = len({tuple(parts[:-1]) for parts in places}) == 1
    for parts in places:
        yield _by_path(index, parts) or _by_stem(index, parts, one_folder)


def _parts(path: str) -> list[str]:
    place = PurePosixPath(normal(path))
    parts = [*place.parts[:-1], place.stem]
    return parts[1:] if len(parts) > 1 and parts[0].casefold() == "test" else parts


def _by_path(index: Index, parts: list[str]) -> str | None:
    """By the same path, or by that of the folder the mask lies in: one folder per picture."""
    *folders, stem = parts
    for name in _stems(stem):
        if found := index.by_path([*folders, name]):
            return found
    for name in _stems(folders[-1]) if folders else ():
        if found := index.by_path([*folders[:-1], name]):
            return found
    return None


def _by_stem(index: Index, parts: list[str], one_folder: bool) -> str | None:
    """By the file name alone, where it can be no other picture's: within a defect, or over all if none is told."""
    *folders, stem = parts
    if len(folders) == 1 and folders[0].casefold() in index.folders:
        return next((f for name in _stems(stem) if (f := index.by_stem(folders[0], name))), None)
    if folders and folders[0].casefold() in index.folders:
        return None
    if folders and (found := next((f for name in _stems(folders[-1]) if (f := index.by_stem("", name))), None)):
        return found
    if folders and not one_folder:
        return None
    return next((f for name in _stems(stem) if (f := index.by_stem("", name))), None)


def _stems(name: str) -> list[str]:
    """What the picture of a mask of this name may be called, the likeliest first."""
    bare = [found[1] for rule in (ANY_ENDING, BEGINNING) if (found := rule.fullmatch(name))]
    numbered = [found[1] for text in (name, *bare) if (found := NUMBER.fullmatch(text))]
    return list(dict.fromkeys([name, *bare, *numbered]))


def from_table(table: Path, root: Path, index: Index) -> list[tuple[str, str]]:
    """The (picture, mask) pairs of a table with the columns image and mask. Raises DataError with the line."""
    text = table.read_text(encoding="utf-8-sig", errors="replace").replace("\0", "")
    head = text.partition("\n")[0]
    sign = next((sign for sign in ";\t" if sign in head), ",")
    reader = csv.DictReader(text.splitlines(), delimiter=sign)
    names = {str(name).strip().casefold(): name for name in reader.fieldnames or ()}
    if not {"image", "mask"} <= set(names):
        raise DataError(f"{table}: has no columns image and mask; write them into its first line")
    pairs = []
    for number, row in enumerate(reader, 2):
        image, mask = ((row[names[key]] or "").strip().replace("\\", "/") for key in ("image", "mask"))
        picture, file = _named_picture(index, image), _named_mask(table.parent, root, mask)
        if picture is None or file is None:
            what = f"no test picture {image}" if picture is None else f"no file {mask}"
            raise DataError(f"{table}, line {number}: there is {what}; give paths below {root.name} or below test")
        pairs.append((picture, file))
    return pairs


def _named_picture(index: Index, text: str) -> str | None:
    parts = PurePosixPath(normal(text)).parts
    tails = [parts, parts[1:]] if parts and parts[0].casefold() == "test" else [parts]
    found = next((f for tail in tails if tail and (f := index.by_path(tail))), None)
    return found or (index.by_stem("", PurePosixPath(normal(text)).stem) if len(parts) == 1 else None)


def _named_mask(folder: Path, root: Path, text: str) -> str | None:
    for given in (folder / text, root / text):
        place = Path(os.path.normpath(given))  # links are followed, but the path itself stays within the data set
        if text and place.is_file() and place.is_relative_to(root):
            return place.relative_to(root).as_posix()
    return None
