"""A project of its own for a benchmark: git, DVC, one folder data set, params.yaml and a trained champion."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

BIN = Path(sys.executable).parent
IGNORED = "/artefacts\n/registry\n/.stack\n"


def config(name: str, **sections: Any) -> dict[str, Any]:
    """params.yaml of a project with one folder data set and PatchCore alone."""
    return {
        "data": {name: {"adapter": "folder", "name": name}},
        "views": {name: {"data": name}},
        "pipeline": {"views": [name], "detectors": ["patchcore"], "size": 256},  # the figures are of one model
        "train": {"detectors": {"patchcore": {"bank_size": 5000}}},
        **sections,
    }


def make(project: Path, name: str, good: Sequence[Path], config: dict[str, Any]) -> None:
    """Begin anew in *project* with the pictures *good* as data set *name*; runs the whole pipeline."""
    shutil.rmtree(project, ignore_errors=True)
    folder = project / "data" / name / "train" / "good"
    folder.mkdir(parents=True)
    for picture in good:
        shutil.copy2(picture, folder)
    (project / "params.yaml").write_text(yaml.safe_dump(config))
    (project / ".gitignore").write_text(f"/data/{name}\n{IGNORED}")
    for command in (
        ["git", "init", "-q"],
        ["dvc", "init", "-q"],
        ["dvc", "add", "-q", f"data/{name}"],
        ["loupe", "pipeline"],
    ):
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(command, cwd=project, check=True, env=os.environ | {"PATH": path})
