"""Where figures are kept: JSON files of ``results/``, each written under a lock of its own."""

import subprocess
from pathlib import Path
from typing import Any

from components.core.artefacts import git_commit, locked, read_json, write_json

RESULTS = Path(__file__).parents[1] / "results"
WORK = Path("runs/benchmark")  # splits, models and logs of all trainings


def stored(path: Path) -> dict[str, Any]:
    """What a file of results holds, nothing before the first run."""
    return dict(read_json(path)) if path.exists() else {}


def add(path: Path, entries: dict[str, Any], *below: str) -> None:
    """Put *entries* beside what *path* holds, or holds *below* those keys; trainings that end together lose nothing."""
    with locked(path.with_name(f".{path.name}.lock")):
        known = stored(path)
        place = known
        for key in below:
            place = place.setdefault(key, {})
        place.update(entries)
        write_json(path, known)


def commit() -> str | None:
    """The commit that figures are of, with ``+`` where files have changed that a figure could depend on.

    What benchmarks write themselves is no change: after its first entry every run would else be of a changed tree.
    """
    found = git_commit()
    if found is None or not found.endswith("+"):
        return found
    words = ["git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)benchmarks/results"]
    changed = subprocess.run([*words, ":(exclude)docs"], capture_output=True, text=True, check=True)
    return found if changed.stdout else found.removesuffix("+")
