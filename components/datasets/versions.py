"""DVC, and nothing else of Loupe, is spoken to here: pins of data sets, their verification and their way back.

The bytes of data/<name> are pinned by data/<name>.dvc. A machine that lacks them takes them from DVC's cache or remote,
or, where the adapter can, builds them anew; in every case the content must match the pin.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from components.core.artefacts import atomic_dir
from components.core.checks import check_name
from components.core.errors import DataError
from components.core.filenames import printable
from components.datasets.adapters import ADAPTERS, adapter, listed
from components.datasets.rows import DEFAULT, WHOLE, Naming
from components.pictures.listing import AGAIN, BROKEN, HIDDEN, SPECIAL, UNREADABLE, UNSEEN, pictures

log = logging.getLogger("loupe")
NO_FILES = {HIDDEN, BROKEN, UNREADABLE, AGAIN, SPECIAL, UNSEEN}  # what the listing passes over that is not copied


def bring_in(
    name: str, adapter_name: str, source: Path | None, root: Path = Path("data"), naming: Naming = DEFAULT
) -> Path:
    """Copy *source* (or what the adapter fetches) to root/name and pin it; good pictures alone come below train/good.

    Raises DataError, SettingsError.
    """
    check_name(name, "the data set's name")
    if (root / name).exists():
        raise DataError(f"{root / name}: exists already; remove it or choose another name")
    kind = adapter(adapter_name)
    if source is not None and not source.is_dir():
        raise DataError(f"{source}: is not a folder; give the data set's folder with --source")
    unpack = kind.unpack(source) if source is not None and kind.unpack is not None else None
    if source is not None and unpack is None:
        listed(adapter_name, source.resolve(), naming)  # a wrong layout is found before anything is copied
    with atomic_dir(root / name) as scratch:
        if unpack is not None:
            unpack(scratch)
        elif source is not None:
            _copy(source, scratch / "train/good" if WHOLE in naming.good else scratch)
        elif kind.fetch is not None:
            kind.fetch(scratch)
        else:
            raise DataError(f"adapter {adapter_name} needs a folder; give it with --source")
        if source is None or unpack is not None:
            kind.rows(scratch)
    pin(root / name)
    return root / name


def _copy(source: Path, out: Path) -> None:
    """Copy all files of *source* but the system's; links become what they point to, those to nowhere are left out."""
    found = pictures(source)
    others = {reason: paths for reason, paths in found.skipped.items() if reason not in NO_FILES}
    files = [*found.taken, *(path for paths in others.values() for path in paths)]
    left = [path for reason in NO_FILES - {HIDDEN} for path in found.skipped.get(reason, [])]
    left += [path for path in files if printable(str(path)) != str(path)]  # DVC cannot name them
    for path in left:
        log.warning("left out: %s", printable(str(path)))
    for path in sorted(set(files) - set(left)):
        target = out / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(path, target)
        except OSError as error:
            raise DataError(f"{path}: cannot be copied ({error.strerror}); mend or remove it") from error


def checkout(name: str, root: Path = Path("data")) -> Path:
    """Make sure that root/name is there and equals its pin. Raises DataError."""
    folder, pinned = root / name, root / f"{name}.dvc"
    if not pinned.exists():
        if folder.is_dir():
            raise DataError(f"{pinned}: not found, so {folder} has no version; pin it with `dvc add {folder}`")
        raise DataError(f"{pinned}: not found; bring the data in with `loupe data add {name} --source DIR`")
    if not folder.exists() and not _from_cache(pinned):
        fetch = ADAPTERS[name].fetch if name in ADAPTERS else None
        if fetch is None:
            raise DataError(
                f"{folder}: the bytes are neither here nor in the DVC cache or remote; unpack the data set there"
            )
        log.info("%s: building from its package", folder)
        with atomic_dir(folder) as scratch:
            fetch(scratch)
    verify(pinned)
    return folder


def pin(folder: Path) -> Path:
    """``dvc add``: write folder.dvc for its present content."""
    from dvc.repo import Repo

    with Repo(str(_repository())) as repo:
        repo.add([os.path.relpath(folder.resolve(), _repository())])
    return folder.with_name(f"{folder.name}.dvc")


def restore(pin_file: Path, folder: Path) -> Path:
    """Make *folder* the version that *pin_file* names, from DVC's cache or remote, and verify it. Raises DataError."""
    target = folder.with_name(f"{folder.name}.dvc")
    if not folder.exists() or not target.exists() or version(target) != version(pin_file):
        shutil.copyfile(pin_file, target)
        shutil.rmtree(folder, ignore_errors=True)
        if not _from_cache(target):
            raise DataError(
                f"{pin_file}: its content is neither in the DVC cache nor in a remote; `dvc pull` brings it"
            )
    verify(target)
    return folder


def verify(pinned: Path) -> None:
    """Compare the folder beside the pin with it and put its content into DVC's cache. Raises DataError."""
    from dvc.repo import Repo

    folder, target = pinned.with_suffix(""), os.path.relpath(pinned.resolve(), _repository())
    with Repo(str(_repository())) as repo:
        (out,) = (out for stage in repo.stage.collect(target) for out in stage.outs)
        if out.workspace_status():
            raise DataError(
                f"{folder}: differs from its pin {pinned.name}; restore it with `dvc checkout {pinned}`, or accept it "
                f"as a new version with `dvc add {folder}`"
            )
        if out.status():  # content built anew is right but not in the cache yet
            repo.commit(target, force=True)


def version(pinned: Path) -> str:
    """The content's identity as DVC writes it, ``<md5>.dir``."""
    import yaml

    return str(yaml.safe_load(pinned.read_text())["outs"][0]["md5"])


def _from_cache(pinned: Path) -> bool:
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    target = os.path.relpath(pinned.resolve(), _repository())
    with Repo(str(_repository())) as repo:
        try:
            if repo.config["core"].get("remote"):
                repo.fetch(targets=[target])
            repo.checkout(targets=[target])
        except DvcException:
            return False
        folder = pinned.with_suffix("")
        # Pins of DVC 2 have hashes of text without its line ends, which name no bytes.
        if folder.is_dir() and "hash: md5\n" in pinned.read_text():
            _require_whole(folder, version(pinned), lambda digest: Path(repo.cache.local.oid_to_path(digest)))
    return folder.exists()


def _require_whole(folder: Path, pinned: str, kept: Callable[[str], Path]) -> None:
    """Compare what came from DVC's cache, which takes its objects at their word; *kept* is where an object lies."""
    damaged = []
    for entry in json.loads(kept(pinned).read_text()):
        path = folder / entry["relpath"]
        with path.open("rb") as stream:
            if hashlib.file_digest(stream, "md5").hexdigest() != entry["md5"]:
                damaged.append(entry)
    if not damaged:
        return
    shutil.rmtree(folder)
    for entry in damaged:
        kept(entry["md5"]).unlink(missing_ok=True)
    raise DataError(
        f"{folder}: {len(damaged)} files are damaged in DVC's cache and taken out of it, first "
        f"{damaged[0]['relpath']}; `dvc pull` brings them from a remote, else put the data set back by hand"
    )


def begin_repository() -> list[Path]:
    """Make the current folder DVC's where it is in none; returns what was made for it. Git is used where it is."""
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        Repo.find_root()
    except NotDvcRepoError:
        spoken = logging.getLogger("dvc")  # a banner of ten lines
        before = spoken.level
        spoken.setLevel(logging.WARNING)
        try:
            Repo.init(no_scm=not Path(".git").exists()).close()
        finally:
            spoken.setLevel(before)
        return [Path(".dvc"), Path(".dvcignore")]
    return []


def _repository() -> Path:
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    try:
        return Path(Repo.find_root()).resolve()
    except NotDvcRepoError:
        raise DataError(f"{Path.cwd()}: is not inside Loupe's repository; run from the project's folder") from None
