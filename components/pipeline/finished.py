"""Whether a run's folder already holds what is asked for: the same request, pictures and code, everything whole."""

import logging
import os
from pathlib import Path
from typing import Any

from components.core.artefacts import code_hash, read_json, tree_hash, values_hash, write_json

log = logging.getLogger("loupe")
SEEN = "seen.json"  # in the work folder: the listing of the data set; times of files are no part of a run's record
REFIT = "fitting again; the old run stays until the new one is done"


def listing(data: Path) -> list[list[Any]]:
    """Name, bytes and time of every file of a data set but hidden ones, in order; nothing is read of them."""
    found = []
    for folder, below, names in os.walk(data, followlinks=True):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith(".") and (path := Path(folder) / name).is_file():
                known = path.stat()
                found.append([path.relative_to(data).as_posix(), known.st_size, known.st_mtime_ns])
    return found


def remember(data: Path, seen: list[list[Any]], work: Path) -> None:
    """Keep what the data set was when the fit began; what changed meanwhile is found by the next one."""
    write_json(work / SEEN, {"data": data.name, "listing": values_hash(seen)})


def finished(out: Path, asked: dict[str, Any], data: Path) -> bool:
    """True where *out* holds this very fit; where it holds another, the log says in one sentence what differs."""
    if not (out / "run.json").exists() or not (out / "work" / SEEN).exists():
        return False
    record = read_json(out / "run.json")
    if why := _difference(record, asked, data, out):
        log.info("%s: %s; %s", out, why, REFIT)
        return False
    said = f"{out}: is finished, with the same request, pictures and program; nothing to do"
    if point := record.get("operating_point"):
        said += f" (`loupe calibrate` has set alpha {point['alpha']:.4g} since)"
    log.info("%s", said)
    return True


def _difference(record: dict[str, Any], asked: dict[str, Any], data: Path, out: Path) -> str | None:
    before = record["request"]
    keys = sorted(key for key in {*before, *asked} if before.get(key) != asked.get(key))
    if keys:
        told = ", ".join(f"{key} {before.get(key)} -> {asked.get(key)}" for key in keys)
        return told + (" (`loupe calibrate` does that without training)" if keys == ["alpha"] else "")
    if record.get("program") != code_hash():
        return "was made by another version of this program"
    if read_json(out / "work" / SEEN)["listing"] != values_hash(listing(data)):
        return f"the files of {data} have changed"
    broken = [name for name, digest in record["outputs"].items() if _hash(out / name) != digest]
    return f"{broken[0]} has changed or is missing" if broken else None


def _hash(path: Path) -> str | None:
    return tree_hash(path) if path.exists() else None
