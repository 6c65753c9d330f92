"""Images a second of bulk scoring by workers, and behind a kill: one bundle, very many small files.

Pictures are copies of real ones with one pixel changed, so that no two files are alike. Each row is `loupe score
--manifest` as a whole command, start and summary included; the last row is killed half way and given again. Numbers of
images beyond those measured are scaled by the last row without a kill.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common.results import RESULTS, commit
from benchmarks.common.runner import ONE_THREAD, options
from benchmarks.common.tables import joined, markdown, wrapped
from components.core.artefacts import write_json

OUT = RESULTS / "bulk.json"
HEAD = ("workers", "seconds", "images a second", "images scored", "days for 100 million images")
SIDE = 128  # pixels of a file


def main(arguments: list[str]) -> None:
    parser = options("bulk", __doc__, report=True)
    parser.add_argument("--bundle", type=Path, help="which model scores")
    parser.add_argument("--pictures", type=Path, default=Path("data/elpv/images"), help="what is copied")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    asked = parser.parse_args(arguments)
    if not asked.report:
        with tempfile.TemporaryDirectory() as folder:
            write_json(OUT, measured(asked, Path(folder)))
    OUT.with_suffix(".md").write_text(page(json.loads(OUT.read_text())))


def measured(asked: Any, folder: Path) -> dict[str, Any]:
    """All rows, over the same files."""
    began = time.monotonic()
    _copies(sorted(asked.pictures.glob("*.png"))[:200], asked.images, folder / "pictures")
    shards = str(folder / "shards")
    _run("shards", str(folder / "pictures"), "--out", shards, "--per", str(max(1, asked.images // 20)))
    made = json.loads((folder / "shards" / "manifest.json").read_text())
    rows = [_row(asked.bundle, folder, workers) for workers in asked.workers]
    rows.append(_killed(asked.bundle, folder, max(asked.workers)))
    about = {"images": made["images"], "shards": made["shards"], "side": SIDE, "commit": commit()}
    return {**about, "rows": rows, "minutes": round((time.monotonic() - began) / 60, 1)}


def _copies(sources: list[Path], count: int, folder: Path) -> None:
    pixels = [np.asarray(Image.open(path).convert("L").resize((SIDE, SIDE))) for path in sources]
    for number in range(count):
        path = folder / f"{number // 1000:05d}" / f"{number:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        own = pixels[number % len(pixels)].copy()
        own[0, 0] = number % 256
        Image.fromarray(own).save(path)


def _run(*words: str) -> None:
    subprocess.run(_loupe(*words), check=True, env=_environment(), stdout=subprocess.DEVNULL)


def _loupe(*words: str) -> list[str]:
    return [sys.executable, "-m", "components.cli", *words]


def _scoring(bundle: Path, folder: Path, workers: int) -> list[str]:
    words = ["score", str(bundle), "--manifest", str(folder / "shards"), "--out", str(folder / f"out-{workers}")]
    return [*words, "--workers", str(workers)]


def _row(bundle: Path, folder: Path, workers: int) -> dict[str, Any]:
    started = time.perf_counter()
    _run(*_scoring(bundle, folder, workers))
    return _told(folder, str(workers), workers, time.perf_counter() - started)


def _killed(bundle: Path, folder: Path, workers: int) -> dict[str, Any]:
    """The command is killed when half of the shards are there, and given again; seconds of both together."""
    out, half = folder / f"out-{workers}", json.loads((folder / "shards/manifest.json").read_text())["shards"] // 2
    shutil.rmtree(out, ignore_errors=True)
    started = time.perf_counter()
    process = subprocess.Popen(
        _loupe(*_scoring(bundle, folder, workers)),
        env=_environment(),
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while len(list(out.glob("scores/*.parquet"))) < half:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    _run(*_scoring(bundle, folder, workers))
    return _told(folder, f"{workers}, killed half way", workers, time.perf_counter() - started)


def _told(folder: Path, what: str, workers: int, seconds: float) -> dict[str, Any]:
    found = json.loads((folder / f"out-{workers}" / "summary.json").read_text())
    return {"workers": what, "seconds": round(seconds, 1), "scored": found["scored"]}


def _environment() -> dict[str, str]:
    return os.environ | ONE_THREAD


def page(found: dict[str, Any]) -> str:
    """results/bulk.md."""
    rows = [
        [
            row["workers"],
            f"{row['seconds']:.0f}",
            f"{row['scored'] / row['seconds']:.0f}",
            str(row["scored"]),
            f"{1e8 / (row['scored'] / row['seconds']) / 86400:.1f}",
        ]
        for row in found["rows"]
    ]
    about = (
        f"{found['images']} files of {found['side']} pixels in {found['shards']} shards, two cores, commit "
        f"{found['commit']}. Whole commands, start and summary included; the last column is scaled, not measured."
    )
    return joined("# Bulk scoring", wrapped(about), markdown(HEAD, rows))
