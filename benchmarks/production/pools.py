"""The benchmark flow over two work pools against the same flow here: equal metrics, and how much longer it takes.

A project of a few pictures with the stages of dvc.yaml, each time begun anew with an empty cache of features. Server,
pools and workers are processes of this machine, so the ratio is what pools cost, not what several machines win.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common.results import RESULTS, commit
from benchmarks.common.runner import ONE_THREAD, options
from benchmarks.common.site import Site
from benchmarks.common.tables import joined, markdown, wrapped
from components.core.artefacts import write_json

OUT = RESULTS / "pools.json"
HEAD = ("where", "seconds", "ratio")
ROOT = Path(__file__).resolve().parents[2]
POOLS = {"one": "one", "two": "two"}  # workers, each in the pool beside it
FLOW = "from flows.benchmark import benchmark; benchmark()"
ELSEWHERE = "__pycache__", "*.pyc"


def main(arguments: list[str]) -> None:
    parser = options("pools", __doc__, report=True)
    parser.add_argument("--pictures", type=Path, help="a data set in MVTec layout", default=Path("data/mvtec_ad_screw"))
    parser.add_argument("--detectors", nargs="+", default=["alps", "patchcore"])
    parser.add_argument("--preset", default="tiny")
    asked = parser.parse_args(arguments)
    if not asked.report:
        with tempfile.TemporaryDirectory() as folder:
            write_json(OUT, measured(asked.pictures, asked.detectors, asked.preset, Path(folder)))
    OUT.with_suffix(".md").write_text(page(json.loads(OUT.read_text())))


def measured(pictures: Path, detectors: list[str], preset: str, folder: Path) -> dict[str, Any]:
    """Seconds of both ways, and the cells whose metrics differ."""
    projects = {where: folder / where / "project" for where in ("here", "pools")}
    for where, project in projects.items():
        make(project, pictures, values(detectors, preset, {} if where == "here" else {name: {} for name in POOLS}))
    seconds = {}
    with Site(folder / "site", projects["pools"], projects["pools"]) as site:
        site.environment |= ONE_THREAD | {"LOUPE_CACHE": str(folder / "cache")}
        site.serve()
        site.work(POOLS)
        for where, project in projects.items():
            shutil.rmtree(folder / "cache", ignore_errors=True)
            seconds[where] = _flown(project, site.environment | {"PYTHONPATH": str(project)})
    told = {name: [_metrics(project, name) for project in projects.values()] for name in detectors}
    differ = [name for name, (here, there) in told.items() if here != there]
    about = {"detectors": detectors, "preset": preset, "pictures": pictures.name, "commit": commit()}
    return {**about, "seconds": seconds, "differ": differ}


def values(detectors: list[str], preset: str, pools: dict[str, Any]) -> dict[str, Any]:
    """params.yaml of the project."""
    runs = {f"product-{name}": {"view": "product", "detector": name, "method": name} for name in detectors}
    return {
        "data": {"product": {"adapter": "folder", "name": "product"}},
        "views": {"product": {"data": "product"}},
        "seed": 0,
        "pipeline": {"views": ["product"], "detectors": detectors, "pools": pools},
        "benchmark": {
            "views": ["product"],
            "detectors": detectors,
            "sources": {"product": "product"},
            "data": {"product": "product"},
            "runs": runs,
        },
        "validation": {"product": {"expect_masks": True}},
        "split": {"calibrate_share": 0.2},
        "synthesis": {"per_image": 1},
        "train": {"preset": preset, "moves": "auto", "minutes": None, "detectors": {name: {} for name in detectors}},
        "calibration": {"alpha": 0.2},
        "evaluation": {"map_size": 64, "bootstrap": 20},
        "export": {"tolerance": 0.001},
    }


def make(project: Path, pictures: Path, params: dict[str, Any]) -> None:
    """A repository with Loupe's own dvc.yaml and code, and one data set."""
    for name in ("components", "flows"):
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns(*ELSEWHERE))
    shutil.copy2(ROOT / "dvc.yaml", project)
    shutil.copytree(pictures, project / "data" / "product")
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    for words in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "add", "-q", "data/product"]):
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(words, cwd=project, check=True, env=os.environ | {"PATH": path})
    shutil.copy2(ROOT / ".dvcignore", project)


def _flown(project: Path, environment: dict[str, str]) -> float:
    started = time.perf_counter()
    given = environment | {"LOUPE_PROJECT": str(project), "LOUPE_STORE": str(project / "store")}
    done = subprocess.run([sys.executable, "-c", FLOW], cwd=project, env=given, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    return round(time.perf_counter() - started, 1)


def _metrics(project: Path, detector: str) -> bytes:
    return (project / "artefacts" / "product" / detector / "evaluation" / "metrics.json").read_bytes()


def page(found: dict[str, Any]) -> str:
    """results/pools.md."""
    seconds = found["seconds"]
    rows = [[where, f"{value:.0f}", f"{value / seconds['here']:.2f}"] for where, value in seconds.items()]
    told = f"differ for {', '.join(found['differ'])}" if found["differ"] else "are the same, byte for byte"
    about = (
        f"{', '.join(found['detectors'])} with preset {found['preset']} on {found['pictures']}, two workers on this "
        f"machine, commit {found['commit']}. All metrics.json {told}."
    )
    return joined("# Work pools", wrapped(about), markdown(HEAD, rows))
