"""Folders as people have them: train/good, test/good and test/<defect>, each with any folders below, and masks; or
good pictures alone."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from components.core.errors import DataError
from components.core.filenames import hidden, normal, printable
from components.datasets.names import sounds_bad, sounds_good
from components.datasets.rows import DEFAULT, WHOLE, Listed, Naming, Row
from components.datasets.truth import TABLE, Index, Matches, beside, from_table, is_truth, match, truth_folders
from components.pictures.listing import AGAIN, BROKEN, UNREADABLE, UNSEEN, pictures

log = logging.getLogger("loupe")
HOW = "`--good {0}` or `--defect {0}` (data.good and data.defect in params.yaml)"
ALL_GOOD = f"say `--good {WHOLE}` if all are good"
MASKS_BESIDE = "mask beside its picture"


@dataclass
class _Found:
    """What a walk of the folders gathers."""

    root: Path
    naming: Naming
    rows: list[Row] = field(default_factory=list)
    taken: dict[str, int] = field(default_factory=dict)
    below: dict[str, list[str]] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)  # folders below good that sound like defects
    not_read: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    truths: list[Path] = field(default_factory=list)  # folders of masks
    own_masks: list[tuple[Path, Path | None]] = field(default_factory=list)  # beside a picture
    inner: list[tuple[Path, Path]] = field(default_factory=list)  # below a defect: the mask, its path without "masks"

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def skip(self, reason: str, paths: Iterable[Path]) -> None:
        self.skipped.setdefault(reason, []).extend(printable(self.name(path)) for path in paths)


def read_folder(root: Path, naming: Naming = DEFAULT) -> Listed:
    """The rows of a folder with train/good, or of good pictures alone where ``Naming.good`` has ``.``.

    Raises DataError that says what to do when it is arranged otherwise.
    """
    _require_names(naming)
    if WHOLE in naming.good:
        return _read_whole(root, naming)
    train, test = root / "train", root / "test"
    found = _Found(root, naming, truths=truth_folders(root))
    sides = [path for path in _folders(train) if normal(path.name) in naming.normals]
    if not sides:
        raise DataError(_no_training(root))
    _require_spelling(root)
    _require_sure(root, naming, [test])
    for side in sides:
        _take(found, side, "normal", "train")
    _take_labelled(found, test)
    for path in _folders(train):
        if path not in sides:
            _leave(found, path)
    _finish(found, test)
    return Listed(found.rows, _notes(found))


def _read_whole(root: Path, naming: Naming) -> Listed:
    """The rows of a folder in which every picture is good."""
    start = f"{printable(str(root))}: `--good {WHOLE}` takes all of its pictures as good"
    put = "put the good ones into train/good, or give their folder alone"
    others = [p.name for p in _folders(root) if p.name.casefold() in ("train", "test") or _says(p.name)]
    if others or naming.defect:
        reason = f"it has {_and(others)}" if others else f"--defect {naming.defect[0]} names others"
        raise DataError(f"{start}, but {reason}; {put} with --data")
    found = _Found(root, naming)
    _take(found, root, "normal", "train")
    names = {Path(row.image_id).name for row in found.rows}
    if not names:
        raise DataError(f"{start}, but it holds none; give the folder of the good pictures with --data")
    if len(names) < len(found.rows) / 2:  # which side a picture is on is drawn from its name
        raise DataError(f"{start}, but its folders hold files of the same names; move them below train/good")
    return Listed(found.rows, _notes(found))


def _says(name: str) -> bool:
    """Whether a folder called *name* says what its pictures are, which is then not the same for all."""
    return is_truth(name) or sounds_good(name) or sounds_bad(name)


def read_labelled(root: Path, naming: Naming = DEFAULT) -> Listed:
    """The labelled pictures of a folder: test/ if there is one, with train/good; else good/ and a folder per defect."""
    _require_names(naming)
    layout = (root / "test").is_dir() or (root / "train").is_dir()
    side = root / "test" if layout else root
    found = _Found(root, naming, truths=[p for p in truth_folders(root) if layout or is_truth(p.name)])
    _require_sure(root, naming, [root / "train", side])
    for path in _folders(root / "train"):
        if normal(path.name) in naming.normals:
            _take(found, path, "normal", "test")
        else:
            _leave(found, path)
    _take_labelled(found, side)
    _finish(found, side)
    if not found.rows:
        raise DataError(f"{root}: holds no labelled pictures; put them into {root.name}/good and {root.name}/<defect>")
    return Listed(found.rows, _notes(found))


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not hidden(p.name)) if path.is_dir() else []


def _require_names(naming: Naming) -> None:
    both = sorted(set(naming.normals) & set(naming.defect))
    if both:
        raise DataError(f"{', '.join(both)}: is declared as good and as a defect; say one of the two")


def _require_sure(root: Path, naming: Naming, sides: list[Path]) -> None:
    """Names that sound good are asked about, and declared ones must exist: a slip would turn labels round."""
    present = [path for side in sides for path in _folders(side)]
    known = {normal(path.name) for path in (*present, *_folders(root / "train"))}
    declared = [name for name in (*naming.good, *naming.defect) if name not in ("good", WHOLE)]
    missing = [name for name in declared if normal(name) not in known]
    if missing:
        raise DataError(f"{root}: has no folder {missing[0]} in train or test; there are {_some(sorted(known))}")
    labelled = {*naming.normals, *naming.defect}
    unsure = [p for p in present if normal(p.name) not in labelled and sounds_good(p.name) and pictures(p).taken]
    if unsure:
        names = [path.relative_to(root).as_posix() for path in unsure]
        raise DataError(
            f"{root}: {_and(names)} {'sounds' if len(names) == 1 else 'sound'} like good pictures; say what they hold: "
            f"{HOW.format(unsure[0].name)}"
        )


def _require_spelling(root: Path) -> None:
    for path in _folders(root):
        plain = path.name.casefold()
        if plain in ("train", "test") and path.name != plain and not (root / plain).is_dir():
            raise DataError(f"{root}: {path.name} is not read, the folder's name is {plain}; rename it")


def _take_labelled(found: _Found, side: Path) -> None:
    """The good and the defective pictures of a test side."""
    for path in _folders(side):
        if path in found.truths:
            continue
        if is_truth(path.name) and normal(path.name) not in found.naming.defect:
            found.inner += [(p, side / p.relative_to(path)) for p in pictures(path).taken]
        elif normal(path.name) in found.naming.normals:
            _take(found, path, "normal", "test")
        else:
            _take(found, path, "anomalous", "test")
    loose = [p for p in (side.iterdir() if side.is_dir() else ()) if p.is_file() and not hidden(p.name)]
    count = len(set(loose) & set(pictures(side).taken)) if loose else 0
    if count:
        found.not_read[f"{found.name(side)}/*" if side != found.root else "*"] = count


def _take(found: _Found, folder: Path, label: str, role: str) -> None:
    listing = pictures(folder)
    for reason, paths in listing.skipped.items():
        found.skip(reason, paths)
    inner = [p for p in listing.taken if any(map(is_truth, p.relative_to(folder).parts[:-1]))]
    found.inner += [(p, folder / _without_truth(p.relative_to(folder))) for p in inner]
    within = set(inner)
    taken, masks = beside([p for p in listing.taken if p not in within])
    found.own_masks += masks
    found.skip(MASKS_BESIDE, [mask for mask, _ in masks])
    name = found.name(folder)
    found.taken[name] = len(taken)
    if not taken:
        found.empty.append(name)
    below = sorted({p.relative_to(folder).parts[0] for p in taken if p.parent != folder})
    if below:
        found.below[name] = below
    _require_one_label(found, folder, label, taken)
    defect = "" if label == "normal" else normal(folder.name)
    for path in taken:
        found.rows.append(Row(found.name(path), _group(found, folder, path), label, defect, role))


def _require_one_label(found: _Found, folder: Path, label: str, taken: list[Path]) -> None:
    """Good pictures in a folder below a defect would be tested as defective ones; the other way round is told."""
    below = {part for path in taken for part in path.relative_to(folder).parts[:-1]}
    good = sorted(part for part in below if normal(part) in found.naming.normals or sounds_good(part))
    if label == "anomalous" and good and normal(folder.name) not in found.naming.defect:
        name = found.name(folder)
        raise DataError(
            f"{found.root}: {name} counts as a defect, but {good[0]} below it sounds like good pictures; put the label "
            f"first ({name.rpartition(folder.name)[0]}good/{folder.name}), or say --defect {folder.name}"
        )
    if label == "normal":
        found.doubtful += [f"{found.name(folder)}/.../{part}" for part in sorted(below) if sounds_bad(part)]


def _without_truth(path: Path) -> Path:
    return Path(*(part for part in path.parts[:-1] if not is_truth(part)), path.name)


def _group(found: _Found, folder: Path, path: Path) -> str:
    below = path.relative_to(folder).parts[:-1]
    return normal(below[0]) if found.naming.groups == "folder" and below else found.root.name


def _leave(found: _Found, folder: Path) -> None:
    count = len(pictures(folder).taken)
    if count:
        found.not_read[found.name(folder)] = count


def _finish(found: _Found, side: Path) -> None:
    """Give the masks to their pictures and name what lies elsewhere."""
    root, tests = found.root, [row for row in found.rows if row.role == "test"]
    places = [(row.image_id, _below(root / row.image_id, side, root)) for row in tests]
    index, matches = Index(places, set(found.naming.normals)), Matches()
    tables = [path for folder in found.truths for path in folder.iterdir() if path.name.casefold() == TABLE]
    for picture, mask in [pair for table in sorted(tables) for pair in from_table(table, root, index)]:
        matches.add(picture, mask)
    listed = set(matches.found)
    for folder in found.truths:
        listing = pictures(folder)
        for reason, paths in listing.skipped.items():
            found.skip(reason, [p for p in paths if p not in tables])
        _match(found, index, matches, [(p, p.relative_to(folder).as_posix()) for p in listing.taken], listed)
    inner = [(mask, _below(place, side, root)) for mask, place in found.inner]
    _match(found, index, matches, inner, listed)
    for own, beside_it in found.own_masks:
        matches.add(found.name(beside_it) if beside_it else None, found.name(own))
    found.rows = [_masked(row, matches) for row in found.rows]
    found.skipped.setdefault("mask without a picture", []).extend(matches.unmatched)
    known = {"train", "test"} if side != root else {path.name for path in _folders(root)}
    for path in _folders(root):
        if path.name not in known and path not in found.truths:
            _leave(found, path)


def _below(path: Path, side: Path, root: Path) -> str:
    above = next(place for place in (side, root / "train", root) if path.is_relative_to(place))
    return path.relative_to(above).as_posix()


def _match(found: _Found, index: Index, matches: Matches, masks: list[tuple[Path, str]], listed: set[str]) -> None:
    """Match by name; what a table names is left to it, be it the picture or the mask."""
    given = {mask for files in matches.found.values() for mask in files}
    rest = [(path, place) for path, place in masks if found.name(path) not in given]
    for (path, _), picture in zip(rest, match(index, [place for _, place in rest]), strict=True):
        if picture is None or picture not in listed:
            matches.add(picture, found.name(path))


def _masked(row: Row, matches: Matches) -> Row:
    if row.label == "normal":
        return row
    return replace(row, mask=matches.mask(row.image_id))


def _notes(found: _Found) -> dict[str, Any]:
    return {
        "taken": found.taken,
        "folders": found.below,
        "empty": found.empty,
        "doubtful": found.doubtful,
        "not_read": found.not_read,
        "skipped": {reason: names for reason, names in sorted(found.skipped.items()) if names},
    }


def note_lines(name: str, notes: dict[str, Any]) -> list[tuple[int, str]]:
    """What a reading found, as lines with the level of logging."""
    told = ((folder, n, _of_folders(notes["folders"].get(folder, []))) for folder, n in notes["taken"].items())
    taken = [f"{'all' if folder == WHOLE else folder} {n}{below}" for folder, n, below in told]
    lines = [(logging.INFO, f"{name}: pictures taken: {', '.join(taken)}")]
    if notes["empty"]:
        lines.append((logging.WARNING, f"{name}: {_and(notes['empty'])} without a picture"))
    if notes["doubtful"]:
        lines.append((logging.WARNING, f"{name}: {_and(notes['doubtful'])} counts as good, but sounds like defects"))
    for folder, count in notes["not_read"].items():
        lines.append((logging.WARNING, f"{name}: {folder} is not read ({count} pictures); {_advice(folder)}"))
    if notes["skipped"]:
        counts = ", ".join(f"{len(names)} {reason}" for reason, names in notes["skipped"].items())
        lines.append((logging.INFO, f"{name}: skipped {sum(map(len, notes['skipped'].values()))}: {counts}"))
    for reason in (BROKEN, UNREADABLE, MASKS_BESIDE, UNSEEN, AGAIN):
        if names := notes["skipped"].get(reason):
            lines.append((logging.WARNING, f"{name}: {len(names)} {reason}: {_some(names)}"))
    if names := notes["skipped"].get("mask without a picture"):
        what = "name them after their pictures, or list them in ground_truth/masks.csv with the columns image and mask"
        lines.append((logging.WARNING, f"{name}: {len(names)} masks match no picture: {_some(names)}; {what}"))
    return lines


def _of_folders(below: list[str]) -> str:
    return f" (in {len(below)} folders: {_some(below)})" if below else ""


def _advice(folder: str) -> str:
    if folder.startswith("train/"):
        last = folder.rpartition("/")[2]
        return f"if it holds good pictures say --good {last}, defects belong below test"
    return "pictures belong into train/good, test/good and test/<defect>"


def _some(names: list[str], most: int = 5) -> str:
    rest = len(names) - most
    return ", ".join(map(printable, names[:most])) + (f" and {rest} more" if rest > 0 else "")


def _and(names: list[str]) -> str:
    shown = [printable(name) for name in names]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _no_training(root: Path) -> str:
    """What to do about a folder without train/good, by what there is instead."""
    start = f"{printable(str(root))}: has no folder train/good"
    below = {path.name: path for path in _folders(root)}
    train = next((path for name, path in below.items() if name.casefold() == "train"), None)
    if train is not None and train.name != "train":
        return f"{start} but {train.name}; rename that to train"
    if train is not None:
        return f"{start}; {_in_train(train)}"
    good = next((path for name, path in below.items() if sounds_good(name)), None)
    if root.name.casefold() == "train" and good is not None:
        return f"{start}; give the folder above it with --data {printable(str(root.parent))}"
    if good is not None:
        count, to = len(pictures(good).taken), f"train/{good.name}{_declared(good.name)}"
        alone = f"give it alone: --data {printable(str(good))} --good {WHOLE}"
        return f"{start} but {good.name} ({count} pictures); move it to {to}, or {alone}"
    nested = next((path for path in below.values() if (path / "train").is_dir()), None)
    if nested is not None:
        return f"{start}, but {nested.name}/train is there; give --data {printable(str(root / nested.name))}"
    listing = pictures(root)
    direct = sum(path.parent == root for path in listing.taken)
    if direct:
        return f"{start} but {direct} pictures of its own; {ALL_GOOD}, else move the good ones into train/good"
    if not listing.taken:
        return f"{start}; it holds none: put the good images into train/good"
    held = f"it holds {len(listing.taken)} pictures in {_some(sorted(below))}"
    return f"{start}; {held}: {ALL_GOOD}, else put the good images into train/good"


def _in_train(train: Path) -> str:
    direct = sum(p.parent == train for p in pictures(train).taken)
    held = {path.name: len(pictures(path).taken) for path in _folders(train)}
    held = {name: count for name, count in held.items() if count}
    likely = [name for name in held if sounds_good(name)]
    if likely:
        names = " ".join(f"--good {name}" for name in likely)
        return f"train/{likely[0]} holds {held[likely[0]]} pictures: if they are good say so with `{names}`"
    if direct:
        return f"train holds {direct} pictures of its own: move the good ones into train/good"
    if held:
        some = _some([f"train/{name} ({count})" for name, count in held.items()])
        return f"there are {some}: put the good images into train/good, or name their folder: --good {next(iter(held))}"
    return "put the good images there"


def _declared(name: str) -> str:
    return "" if name == "good" else f" and say --good {name}"
